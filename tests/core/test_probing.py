"""What a broker can do, found out by trying it: ours can do all of it."""

import pytest
from tiers import until

from broker.settings import Access
from megace2_iot.bus import BrokerSettings, connect
from megace2_iot.bus.probing import LACKS, probe


async def lacks(broker):
    """What it cannot do: name and advice."""
    found = await probe(BrokerSettings(url=broker.url), "site/probe")
    return {finding.name: finding.advice for finding in found if finding.able is False}


async def test_our_brokers_lack_nothing(run_broker):
    """Nobody is advised of anything on them, and nothing is left behind."""
    async with run_broker(max_packet_size=2 << 20) as broker:
        assert await lacks(broker) == {}
        found = await probe(BrokerSettings(url=broker.url), "site/probe")
        assert {finding.name for finding in found} >= set(LACKS) - {
            "session at another node",
            "retained at another node",
        }


async def test_a_second_node_is_asked_what_it_knows_of_the_first(run_embedded):
    """Two addresses of one broker are a cluster that shares everything."""
    async with run_embedded() as broker:
        found = await probe(BrokerSettings(url=f"{broker.url},{broker.url}"), "site/probe")
    able = {finding.name: finding.able for finding in found}
    assert able["retained at another node"] and able["session at another node"]


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"max_retained_messages": 0}, {"retained", "retained under a wildcard"}),
        ({"max_packet_size": 50_000}, {"packet of 98 KB", "packet of 1 MB"}),
        ({"access": Access(may_publish=lambda client_id, topic: not topic.endswith("/will"))}, {"will"}),
    ],
    ids=["retained", "packets", "will"],
)
async def test_what_a_broker_lacks_is_named(run_embedded, settings, missing):
    """And what follows, where it matters to us."""
    async with run_embedded(**settings) as broker:
        lacking = await lacks(broker)
    assert set(lacking) == missing
    assert all(lacking[name] == LACKS.get(name, "") for name in missing)


async def test_a_probe_leaves_nothing_behind(run_embedded):
    """No retained message, no session."""
    async with run_embedded() as broker, connect(BrokerSettings(url=broker.url), "observer") as bus:
        await probe(BrokerSettings(url=broker.url), "site/probe")
        await until(lambda: broker.stats().sessions == 1)
        heard = await bus.subscribe("site/#")
        await bus.publish("site/last", b"word")
        assert (await anext(heard)).topic == "site/last"
