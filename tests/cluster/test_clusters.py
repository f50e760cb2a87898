"""The loop on three nodes of another's broker, one of which is killed while windows and updates are on their way.

Each takes 40 s, half of it the brokers' start: they are tried in CI, and where MEGACE2_CLUSTERS is set.
"""

import os

import pytest
from absent import skip_or_fail
from clusters import check_invariant, home_of, loop_with_a_death
from tiers import Lab

from broker.nats import nats_cluster, nats_server
from broker.rabbitmq import rabbitmq_cluster, rabbitmq_server
from broker.settings import BrokerError
from megace2_iot.bus import BrokerSettings
from megace2_iot.bus.probing import probe

WINDOWS, PAUSE = 30, 0.1
asked = os.environ.get("MEGACE2_CLUSTERS") or os.environ.get("CI")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not asked, reason="takes 40 s a cluster: set MEGACE2_CLUSTERS=1"),
]


def need(find):
    """The broker must be there."""
    try:
        find()
    except BrokerError as error:
        skip_or_fail(str(error))


async def outlives(cluster, folder):
    """The node that the first edge is connected to is killed in the middle, and stays dead."""
    node = cluster.nodes[home_of(cluster, "edge-1")]
    outcome = await loop_with_a_death(Lab(cluster.url, folder, repeat_every=1.0), node.kill, WINDOWS, PAUSE)
    check_invariant(outcome, WINDOWS)
    assert outcome.folded > outcome.folded_before


async def lacking(cluster):
    """What it cannot do, while all its nodes are there."""
    found = await probe(BrokerSettings(url=cluster.url), "megace2-probe")
    return {finding.name for finding in found if finding.able is False}


async def test_the_loop_outlives_a_node_of_nats(tmp_path):
    """Every window is counted once, every update folded once, versions rise; what it lacks is found out.

    A third of the new subscriptions are refused from then on, and asked for again.
    """
    need(nats_server)
    async with nats_cluster() as cluster:
        assert await lacking(cluster) >= {"MQTT 5", "shared subscriptions"}
        await outlives(cluster, tmp_path)


async def test_the_loop_outlives_a_node_of_rabbitmq(tmp_path):
    """The same where retained messages reach neither wildcards nor other nodes: they are repeated."""
    need(rabbitmq_server)
    async with rabbitmq_cluster() as cluster:
        assert await lacking(cluster) >= {
            "MQTT 5",
            "retained under a wildcard",
            "retained at another node",
            "shared subscriptions",
        }
        await outlives(cluster, tmp_path)
