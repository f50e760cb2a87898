"""What a device may be: without a camera, of either stage, of an older stem, with or without labels to share."""

import asyncio

import numpy as np
import pytest
from tiers import command, corpus, played, running, until

from device_agent.agent import DeviceRefused
from device_agent.learning import Learner
from megace2_iot.messages import DeviceConfig, FeaturePacket, ModelPointer, Prediction, RoundStart, UpdateOffer
from megace2_iot.quantize import Quantized, dequantize
from megace2_iot.service import leaves

NO_ROUNDS = {"rounds": False, "adapters": False}


@pytest.mark.parametrize("stage", ["features", "embedded"])
async def test_either_stage_is_answered(run_embedded, make_lab, stage):
    """The edge decides the stage; both give the same scores but for what the coarser coding costs."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        device = lab.device()
        scheduling = {"stages": (stage,), "relative_bound": 0.001}
        async with lab.listening() as ear, running(lab.cloud(), lab.edge(learning=NO_ROUNDS, scheduling=scheduling)):
            async with asyncio.timeout(30):
                await device.run(played(corpus(6)))
            await until(lambda: len(ear.of(Prediction)) == 6)
        assert {packet.stage for packet in ear.of(FeaturePacket)} == {stage}
        scores = [p.score for p in sorted(ear.of(Prediction), key=lambda p: p.seq)]
        assert np.isfinite(np.array(scores, float)).all()


async def test_a_device_without_a_camera_counts_only_where_it_touched(run_embedded, make_lab):
    """Its update has examples behind text and audio groups, and none behind those of vision."""
    async with run_embedded() as broker, Learner() as learner:
        lab = make_lab(broker.url)
        blind = lab.device("blind", learner=learner, dims={"text": 24, "audio": 12})
        stream = blind.run(played(corpus(12), without=("vision",)), stay=True)
        async with lab.listening() as ear, running(lab.cloud(), lab.edge(), stream):
            await until(lambda: [offer for offer in ear.of(UpdateOffer, "edge-1") if offer.num_examples])
            await until(lambda: blind.telemetry.counters["windows_answered"] == 12)
        for offer in (ear.of(UpdateOffer, "blind")[-1], ear.of(UpdateOffer, "edge-1")[-1]):
            touched = {group for group, count in offer.num_examples.items() if count}
            assert touched
            assert not [group for group in touched if "vision" in group]
        assert all("vision" not in w.sequences for packet in ear.of(FeaturePacket) for w in packet.windows)


async def test_a_device_with_wrong_dims_is_told_and_ends(run_embedded, make_lab):
    """The process exits with 1, and both lists of dimensions stand on its screen."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        async with running(lab.cloud(), lab.edge(learning=NO_ROUNDS)):
            with pytest.raises(BaseExceptionGroup) as caught:
                async with asyncio.timeout(30):
                    await lab.device("wide", dims={"text": 300}).run(played(corpus(1)))
            (refused,) = leaves(caught.value)
            assert isinstance(refused, DeviceRefused)
            recording = await recorded(lab, text=7)
            config = str(lab.settings_file())
            status, printed = await command("device", "--id", "cam-9", "--replay", recording, "--config", config)
        assert status == 1
        assert "it sends text 7, the model takes text 24, audio 12, vision 10" in printed
        assert "Traceback" not in printed


async def recorded(lab, text: int) -> str:
    """A recording of one window whose text is so wide."""
    from megace2_iot.messages import PacketWindow
    from megace2_iot.quantize import quantize
    from megace2_iot.recording import Recorder

    sequence = quantize(np.ones((3, text), np.float32), 0.02).to_fields()
    window = PacketWindow(seq=1, captured_at=0.0, sequences={"text": sequence})
    packet = FeaturePacket(device="cam-9", epoch=1, sent_at=0.0, stage="features", windows=(window,))
    with Recorder(lab.folder / "wide.rec") as recorder:
        recorder.add(0.0, "cam-9", packet.encode())
    return str(lab.folder / "wide.rec")


async def test_an_unknown_stem_is_answered_stem_gone(run_embedded, make_lab):
    """The packet is not lost: its device hears the stem of today and sends the window again under it."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        device = lab.device()
        async with lab.listening() as ear:
            await old_config(lab, ear)
            stream = device.run(played(corpus(3)), stay=True)
            async with running(stream):
                await until(lambda: device.telemetry.counters["windows_accepted"] == 3)
                async with running(lab.cloud(), lab.edge(learning=NO_ROUNDS, scheduling={"stages": ("embedded",)})):
                    await until(lambda: device.telemetry.counters["windows_answered"] == 3, 60)
        stems = [packet.stem for packet in ear.of(FeaturePacket)]
        assert stems[-1] == ear.of(ModelPointer, "edge-1")[-1].stem
        assert len(ear.of(Prediction, "cam-1")) >= 3


async def old_config(lab, ear):
    """A retained configuration of an earlier edge, whose stem is nowhere to be had."""
    gone = DeviceConfig(
        stage="embedded", relative_bound=0.02, rate=0, train=False, share_labels=False, stem="0" * 64, stem_size=100
    )
    await ear.bus.publish(lab.topics.device_down("cam-1", "config", "edge-1"), gone.encode(), retain=True)


async def test_a_recording_of_an_unknown_stem_is_stem_gone(run_embedded, make_lab):
    """A packet under a stem that the edge does not hold is answered so, with the name and size of today's."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        async with lab.listening() as ear, running(lab.cloud(), lab.edge(learning=NO_ROUNDS)):
            await until(lambda: ear.of(ModelPointer, "edge-1"))
            device = lab.device("source")
            async with asyncio.timeout(30):
                await device.run(played(corpus(1)))
            packet = ear.of(FeaturePacket)[0].model_copy(
                update={"device": "old", "stage": "embedded", "stem": "0" * 64}
            )
            await ear.bus.publish(lab.topics.device_up("old", "packet", "edge-1"), packet.encode())
            await until(lambda: ear.of(Prediction, "old"))
        (answer,) = ear.of(Prediction, "old")
        pointer = ear.of(ModelPointer, "edge-1")[-1]
        assert (answer.status, answer.stem, answer.stem_size) == ("stem_gone", pointer.stem, pointer.stem_size)


@pytest.mark.parametrize("shared", [False, True])
async def test_labels_leave_only_where_they_may(run_embedded, make_lab, shared):
    """`share_labels` is off by default, at the edge and at the device; on, labels reach the edge's store."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        more = {"scheduling": {"share_labels": True}} if shared else {}
        device = lab.device(share_labels=0.5)
        async with lab.listening() as ear, running(lab.cloud(), lab.edge(learning=NO_ROUNDS, **more)):
            async with asyncio.timeout(30):
                await device.run(played(corpus(10)))
            await until(lambda: ear.figures("edge-1").counters["windows_received"] == 10)
        labels = [w for packet in ear.of(FeaturePacket) for w in packet.windows if w.score is not None]
        assert len(labels) == (5 if shared else 0)
        assert all(bool(w.group) == (w.score is not None) for packet in ear.of(FeaturePacket) for w in packet.windows)
        assert ear.figures("edge-1").counters["labels"] == len(labels)


async def test_feedback_labels_a_window_that_was_answered(run_embedded, make_lab):
    """`megace2 label` reaches the edge's store by (epoch, seq)."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        async with lab.listening() as ear, running(lab.cloud(), lab.edge(learning=NO_ROUNDS)):
            async with asyncio.timeout(30):
                await lab.device().run(played(corpus(1)))
            answer = ear.of(Prediction, "cam-1")[0]
            which = ["--epoch", str(answer.epoch), "--seq", str(answer.seq), "--device", "cam-1", "--edge", "edge-1"]
            status, printed = await command("label", "1.5", *which, "--config", str(lab.settings_file()))
            assert status == 0, printed
            await until(lambda: ear.figures("edge-1").gauges.get("labelled_windows") == 1)


async def test_an_edge_whose_devices_cannot_train_still_teaches(run_embedded, make_lab):
    """Labels are shared, nobody trains: the edge alone holds rounds, and releases rise."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        edge = lab.edge(scheduling={"share_labels": True})
        stream = lab.device(share_labels=1.0).run(played(corpus(60)), stay=True)
        async with lab.listening() as ear, running(lab.cloud(), edge, stream):
            await until(lambda: ear.of(ModelPointer, "edge-1") and ear.of(ModelPointer, "edge-1")[-1].version >= 3, 60)
        assert all(not start.participants for start in ear.of(RoundStart))
        assert not ear.of(UpdateOffer, "cam-1")


def test_a_packet_of_the_wire_can_be_read_back():
    """What the tests above look into: the quantised fields of a window are its features within the bound."""
    from device_agent.sources import window_of
    from device_agent.windows import to_packet_window

    sample = corpus(1)[0]
    packed = to_packet_window(window_of(sample), 1, stem=None, relative_bound=0.02, share_label=False)
    for modality, fields in packed.sequences.items():
        values = sample.features[modality].values
        error = np.abs(dequantize(Quantized.from_fields(fields)) - values).max(axis=0)
        assert (error <= 0.02 * np.ptp(values, axis=0) + 1e-6).all()
