"""A broker beside the edge and one beside the cloud, with the bridge of docs/scale.md between them."""

import re
from pathlib import Path

import pytest
from absent import skip_or_fail
from tiers import Lab, corpus, played, running, until

from broker.mosquitto import MosquittoSettings, private_mosquitto
from broker.mosquitto_process import find_mosquitto
from device_agent.learning import Learner
from megace2_iot.messages import ModelPointer, Prediction
from megace2_iot.topics import Topics

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
pytestmark = pytest.mark.slow


def bridge(port):
    """The lines of the page, to a broker of this machine without TLS."""
    (block,) = re.findall(r"```\n(connection .*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for line in block.splitlines() if not line.startswith("bridge_cafile")]
    return tuple(f"address 127.0.0.1:{port}" if line.startswith("address ") else line for line in lines)


async def test_a_round_crosses_a_bridge(tmp_path):
    """An edge's update reaches the cloud and the release comes back; of the devices nothing crosses."""
    if find_mosquitto() is None:
        skip_or_fail("mosquitto is not installed (apt install mosquitto)")
    async with (
        private_mosquitto() as central,
        private_mosquitto(MosquittoSettings(more=bridge(central.port))) as local,
        Learner() as learner,
    ):
        above, below = (Lab(broker.url, tmp_path, topics=Topics(site="lab")) for broker in (central, local))
        device = below.device(learner=learner, share_labels=0.7)
        edge = below.edge(scheduling={"share_labels": True})
        stream = device.run(played(corpus(60)), stay=True)
        async with above.listening() as far, below.listening() as near, running(above.cloud(), edge, stream):
            await until(lambda: any("edge-1" in pointer.folded for pointer in far.of(ModelPointer, "cloud")), 60)
            newest = far.of(ModelPointer, "cloud")[-1].version
            await until(lambda: near.of(ModelPointer, "edge-1")[-1].version >= newest)
            await until(lambda: len({answer.seq for answer in near.of(Prediction, "cam-1")}) == 60)
        assert {at.tier for at, _ in far.heard} == {"cloud", "edge"}
