"""Kill anything, any time: no accepted window or update is lost, and none is counted twice."""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiers import PATIENCE, Lab, corpus, free_port, played, process, running, until

from cloud_aggregator.store import Store
from device_agent.learning import Learner
from edge_gateway.store import EdgeStore
from megace2_iot.messages import FeaturePacket, ModelPointer, Prediction, State, Verdict

NO_ROUNDS = {"rounds": False, "adapters": False}


@pytest.mark.parametrize("run_broker", ["mosquitto"], indirect=True)  # it keeps the session of who vanished
async def test_an_edge_that_is_killed_loses_no_window(run_broker, make_lab):
    """Its devices send again what was unanswered; each window is counted once."""
    async with run_broker() as broker:
        lab = make_lab(broker.url)
        config = str(lab.settings_file("learning = { rounds = false, adapters = false }\n"))
        device = lab.device()
        async with lab.listening() as ear, running(lab.cloud(), device.run(played(corpus(60), 0.02), stay=True)):
            async with process("edge", "--config", config):
                await until(lambda: device.telemetry.counters["windows_answered"] >= 10, 60)
            assert device.telemetry.counters["windows_answered"] < 60
            async with process("edge", "--config", config):
                await until(lambda: device.telemetry.counters["windows_answered"] == 60, 60)
                await until(lambda: ear.of(State, "cam-1"))
        counters = device.telemetry.counters
        assert counters["windows_accepted"] == counters["windows_answered"] == 60
        answers = Counter(p.seq for p in ear.of(Prediction, "cam-1"))
        assert sum(answers.values()) - 60 == counters["answers_repeated"]


async def test_a_cloud_that_is_killed_goes_on_where_it_was(run_embedded, make_lab):
    """Versions only rise, and no update is folded twice."""
    async with run_embedded() as broker, Learner() as learner:
        lab = make_lab(broker.url)
        config = str(lab.settings_file())
        stream = lab.device(learner=learner).run(played(corpus(12)), stay=True)
        async with lab.listening() as ear, running(lab.edge(), stream):
            folded = lambda: sum(v.accepted for v in ear.of(Verdict, "edge-1"))  # noqa: E731
            async with process("cloud", "--config", config):
                await until(lambda: folded() >= 2, 60)
            before = ear.of(ModelPointer, "cloud")[-1].version
            async with process("cloud", "--config", config):
                await until(lambda: ear.of(ModelPointer, "cloud")[-1].version >= before + 2, 60)
        versions = [pointer.version for pointer in ear.of(ModelPointer, "cloud")]
        assert versions == sorted(versions)
        with Store.open(lab.folder / "cloud", durable=False) as store:
            updates = [release.update_id for release in store.releases(store.family().family) if release.update_id]
        assert len(updates) == len(set(updates))


async def test_a_broker_that_restarts_with_nothing_is_told_everything_again(run_embedded, make_lab):
    """Retained state is published again, subscriptions are renewed, and streaming goes on."""
    port = free_port()
    lab = make_lab(f"mqtt://127.0.0.1:{port}")
    device = lab.device()
    async with running(lab.cloud(), lab.edge(learning=NO_ROUNDS), device.run(played(corpus(60), 0.05), stay=True)):
        async with run_embedded(port=port):
            await until(lambda: device.telemetry.counters["windows_answered"] >= 5)
        await asyncio.sleep(0.3)
        async with run_embedded(port=port), lab.listening() as ear:
            await until(lambda: device.telemetry.counters["windows_answered"] == 60, 60)
            await until(lambda: {at.node for at, m in ear.heard if type(m) is State} >= {"cam-1", "edge-1", "cloud"})
    assert device.telemetry.counters["windows_lost"] == 0


async def test_the_outbox_survives_its_device(run_embedded, make_lab):
    """What a killed device had accepted is sent by the next one, under the same epoch, before anything new."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        config = str(lab.settings_file())
        arguments = ("device", "--no-train", "--speed", "100", "--stay", "--id", "cam-1", "--config", config)
        async with lab.listening() as ear:
            async with process(*arguments):
                # there is no edge: nothing is answered
                await until(lambda: ear.figures("cam-1").counters["windows_accepted"] >= 20)
            held = ear.figures("cam-1").counters["windows_accepted"]
            async with process(*arguments), running(lab.cloud(), lab.edge(learning=NO_ROUNDS)):
                kept = set(range(1, held + 1))  # windows of its own follow, and some are answered before these
                await until(lambda: {p.seq for p in ear.of(Prediction, "cam-1")} >= kept, 60)
        assert {p.seq for p in ear.of(Prediction, "cam-1")} >= set(range(1, held + 1))
        assert len({p.epoch for p in ear.of(FeaturePacket, "cam-1")}) == 1


@pytest.mark.parametrize("tier", ["broker", "cloud", "edge", "device"])
async def test_ctrl_c_ends_a_tier_within_five_seconds(run_embedded, make_lab, tier):
    """With status 0, its goodbye said, and without a traceback; also while a model is being trained."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        config = str(
            lab.settings_file("learning = { training = { epochs = 2000 } }\nscheduling = { share_labels = true }\n")
        )
        stream = lab.device("other", share_labels=1.0).run(played(corpus(40)), stay=True)
        arguments = {
            "broker": ("broker", "--port", "0"),
            "device": ("device", "--stay", "--speed", "100", "--config", config),
        }.get(tier, (tier, "--config", config))
        others = [] if tier == "cloud" else [lab.cloud()]
        async with lab.listening() as ear, running(stream, *others), process(*arguments) as child:
            if tier == "broker":
                await until(lambda: child.said)
            else:
                node = {"cloud": "cloud", "edge": "edge-1", "device": "device-1"}[tier]
                await until(lambda: ear.of(State, node))
            if tier == "edge":
                await until(lambda: any(at.kind == "round" for at, _ in ear.heard), 60)
            child.send_signal(signal.SIGINT)
            began = time.monotonic()
            async with asyncio.timeout(PATIENCE):
                assert await child.wait() == 0, "".join(child.said)
            assert time.monotonic() - began < 5
            assert "Traceback" not in "".join(child.said)
            if tier != "broker":
                await until(lambda: ear.of(State, node)[-1].state == "stopped")


async def test_a_child_does_not_outlive_its_parent(run_embedded, tmp_path):
    """A cloud that is killed takes its trainer along, which made release 1."""
    async with run_embedded() as broker:
        lab = Lab(broker.url, tmp_path)
        async with process("cloud", "--config", str(lab.settings_file())) as cloud:
            await until(lambda: children(cloud.pid))
            (trainer,) = children(cloud.pid)
            os.kill(cloud.pid, signal.SIGKILL)
        await until(lambda: not alive(trainer))


async def test_an_adapter_of_another_release_is_left_alone(run_embedded, make_lab):
    """An edge that was killed between adopting and personalising has one; it starts, and the base answers."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        async with lab.listening() as ear, running(lab.cloud()):
            async with running(lab.edge(learning=NO_ROUNDS)):
                await until(lambda: ear.of(ModelPointer, "edge-1"))
            wide = {"linear.weight": np.zeros((99, 99), np.float32)}
            judged = {"gate": "adapter", "stands_on": ["another", "inserted"]}
            EdgeStore(lab.folder / "edges" / "edge-1").keep_adapter(wide, judged)
            async with running(lab.edge(learning=NO_ROUNDS)), asyncio.timeout(PATIENCE):
                await lab.device().run(played(corpus(2)))
        assert not any(prediction.adapter for prediction in ear.of(Prediction))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_trainer_that_dies_is_started_again(run_embedded, make_lab):
    """An edge whose child was killed (for its memory, say) answers meanwhile and teaches on."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        config = str(lab.settings_file("scheduling = { share_labels = true }\n"))
        stream = lab.device(share_labels=1.0).run(played(corpus(40)), stay=True)
        async with lab.listening() as ear, running(lab.cloud(), stream), process("edge", "--config", config) as edge:
            folded = lambda: sum(v.accepted for v in ear.of(Verdict, "edge-1"))  # noqa: E731
            await until(lambda: folded() >= 1, 60)
            os.kill(children(edge.pid)[0], signal.SIGKILL)
            before = folded()
            await until(lambda: folded() >= before + 2, 60)
