"""Store and forward over a real broker: an absent edge, a killed device, a full outbox, and what the edge knows."""

import asyncio
import json
from collections import Counter

import pytest
from tiers import command, corpus, played, process, running, until

from device_agent.outbox import Outbox
from device_agent.settings import DeviceSettings, open_outbox
from megace2_iot.messages import FeaturePacket, Prediction

QUIET = {"rounds": False, "adapters": False}


def told(figures):
    return sum(count for name, count in figures.counters.items() if name.startswith("windows_shed_told_"))


@pytest.mark.parametrize("when_full", ["drop_oldest", "thin"])
@pytest.mark.parametrize("run_broker", ["mosquitto"], indirect=True)
async def test_what_an_absent_edge_missed_is_answered_or_told(run_broker, make_lab, when_full):
    """Live windows first, what waited after them and marked so; the rest was shed, and the edge knows that it was."""
    async with run_broker() as broker:
        lab = make_lab(broker.url)
        device = lab.device(outbox_packets=20, when_full=when_full, commit_interval=0.01)
        counters = device.telemetry.counters
        go_on = asyncio.Event()

        async def stream():
            async for window in played(corpus(60)):
                yield window
            await go_on.wait()
            async for window in played(corpus(4), 0.3):
                yield window

        async with lab.listening() as ear, running(lab.cloud(), device.run(stream(), stay=True)):
            await until(lambda: counters["windows_accepted"] == 60)
            await asyncio.sleep(1.0)  # what waits is backlog now
            async with running(lab.edge(learning=QUIET)):
                await until(lambda: counters["windows_answered"])
                go_on.set()
                await until(lambda: counters["windows_answered"] + counters["windows_shed_full"] == 64)
                await until(lambda: not device.telemetry.gauges["outbox_gaps"])
                await until(lambda: told(ear.figures("edge-1")) == counters["windows_shed_full"])
        assert counters["windows_shed_full"] >= 40
        assert ear.figures("edge-1").counters["windows_missing"] == 0
        assert set(Counter(p.seq for p in ear.of(Prediction)).values()) == {1}
        replayed = [packet for packet in ear.of(FeaturePacket) if packet.replayed and packet.windows]
        assert min(window.seq for window in replayed[0].windows) < 60


async def test_a_killed_devices_books_balance_at_its_edge(run_embedded, make_lab):
    """Every seq was answered, or the edge was told that it is not coming: those that the kill left out, too."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        config = str(lab.settings_file("[edge.learning]\nrounds = false\nadapters = false\n"))
        arguments = ("device", "--no-train", "--speed", "100", "--stay", "--id", "cam-1", "--config", config)
        async with lab.listening() as ear, running(lab.cloud(), lab.edge(learning=QUIET)):
            async with process(*arguments):
                await until(lambda: len(ear.of(Prediction)) >= 20)
            async with process(*arguments):
                await until(lambda: ear.figures("edge-1").counters["seqs_left_out"])
                await until(lambda: ear.figures("cam-1").gauges.get("outbox_gaps") == 0)
            status, printed = await command("status", "--json", "--config", config)
        nodes = {node["id"]: node for node in json.loads(printed)["nodes"]}
        assert (status, nodes["cam-1"]["missing"], nodes["edge-1"]["missing"]) == (0, 0, 0)
        outbox: Outbox = open_outbox(DeviceSettings(id="cam-1", state_dir=lab.folder / "devices"))
        totals = dict(outbox.totals)
        assert totals.pop("accepted") == len(outbox) + sum(totals.values())
        outbox.close()


async def test_a_full_outbox_may_hold_back_its_source(run_embedded, make_lab):
    """With `block` a data set waits for room: nothing is shed, though far more comes than is kept."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        device = lab.device(outbox_packets=5, when_full="block")
        counters = device.telemetry.counters
        async with running(lab.cloud(), lab.edge(learning=QUIET)), asyncio.timeout(60):
            await device.run(played(corpus(40)))
        assert counters["windows_accepted"] == counters["windows_answered"] == 40
        assert sum(count for name, count in counters.items() if name.startswith("windows_shed")) == 0
