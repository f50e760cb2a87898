"""What strangers send to running tiers: each bad message is counted, answered where somebody waits, and survived."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import zstandard
from tiers import PATIENCE, Ear, Lab, corpus, until

from megace2_iot import codec
from megace2_iot.blobs import digest
from megace2_iot.bus import connect
from megace2_iot.deltas import encode_delta
from megace2_iot.messages import (
    DeviceProfile,
    FeaturePacket,
    Feedback,
    ModelPointer,
    PacketWindow,
    Prediction,
    Refusal,
    State,
    UpdateOffer,
    Verdict,
)
from megace2_iot.quantize import quantize

DEVICE, EDGE = "stranger", "edge-1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, release_1: Path) -> Iterator[Lab]:
    """One broker, cloud, edge and device, each a process, for all tests of this file."""
    folder = tmp_path_factory.mktemp("bad-input")
    with start("broker", "--port", "0", stdout=subprocess.PIPE) as broker:
        url = broker.stdout.readline().decode().strip()
        lab = Lab(url, folder)
        lab.settings_file().rename(folder / "site.toml")
        config = ["--config", str(folder / "site.toml")]
        device = ["device", "--id", "cam-1", "--stay", "--no-train", "--speed", "50", *config]
        with start("cloud", *config), start("edge", *config), start(*device):
            yield lab


def start(*arguments: str, **pipes: int) -> Tier:
    return Tier([sys.executable, "-m", "megace2_iot.cli", *arguments], stdin=subprocess.DEVNULL, **pipes)


class Tier(subprocess.Popen):
    """A process that is alive when its tests are over, and ends with them."""

    def __exit__(self, *error: object) -> None:
        crashed = self.poll()
        self.terminate()
        super().__exit__(*error)
        assert crashed is None, f"{self.args} ended with status {crashed}"


@asynccontextmanager
async def stranger(lab: Lab) -> AsyncIterator[Ear]:
    """An ear that may also speak, once the edge has a model."""
    async with lab.listening() as ear:
        await until(lambda: ear.of(ModelPointer, EDGE) and ear.of(ModelPointer, "cloud"), 60)
        await until(lambda: ear.figures("cam-1").counters["windows_answered"], 60)
        yield ear


def sequence(values: object = None) -> dict[str, object]:
    given = np.zeros((5, 24), np.float32) + np.arange(5, dtype=np.float32)[:, None] if values is None else values
    return quantize(np.asarray(given, np.float32), 0.02).to_fields()


def packet(seq: int = 1, epoch: int = 1, **sequences: object) -> FeaturePacket:
    window = PacketWindow(seq=seq, captured_at=0.0, sequences=sequences or {"text": sequence()})
    return FeaturePacket(device=DEVICE, epoch=epoch, sent_at=0.0, stage="features", windows=(window,))


def bomb() -> bytes:
    """A frame of a few KB that unfolds to 64 MB."""
    return codec.HEADER.pack(codec.MAGIC, codec.VERSION, 1) + zstandard.ZstdCompressor().compress(bytes(64 << 20))


def long_key() -> bytes:
    """A map with a key of 60 KB: what is said of it must still fit into an answer."""
    return codec.encode({**packet().model_dump(), "k" * 60_000: 1})


UNREADABLE = {
    "empty but for a byte": (b"\x00", "truncated"),
    "truncated": (packet().encode()[:-40], "damaged"),
    "of another program": (b'{"json": true}', "not a Mega-CE2 message"),
    "of an unknown version": (b"M2\x09" + packet().encode()[3:], "envelope version 9"),
    "with unknown flags": (b"M2\x01\xf0" + packet().encode()[4:], "flags"),
    "a bomb": (bomb(), "oversized"),
    "with an unknown key": (codec.encode({**packet().model_dump(), "extra": 1}), "extra"),
    "with a key of 60 KB": (long_key(), "packet"),
    "without windows": (codec.encode({**packet().model_dump(), "windows": []}), "windows"),
    "of another device": (packet().model_copy(update={"device": "cam-1"}).encode(), "the topic says stranger"),
    "with a wrong stage": (codec.encode({**packet().model_dump(), "stage": "raw"}), "stage"),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_unreadable_packet_is_refused_with_a_reason(lab, name):
    """It is counted, its sender hears why, and the edge goes on."""
    payload, reason = UNREADABLE[name]
    async with stranger(lab) as ear:
        before = ear.figures(EDGE).counters["packets_rejected"]
        await ear.bus.publish(lab.topics.device_up(DEVICE, "packet", EDGE), payload)
        await until(lambda: any(reason in refusal.reason for refusal in ear.of(Refusal, DEVICE)))
        await until(lambda: ear.figures(EDGE).counters["packets_rejected"] > before)


async def test_a_packet_above_the_broker_s_limit_hurts_its_sender_only(lab):
    """The embedded broker drops such a connection; the edge hears nothing of it and stays."""
    async with stranger(lab) as ear, connect(lab.broker, "giant") as bus:
        await bus.wait_connected(5)
        with pytest.raises(Exception, match=r"."):
            async with asyncio.timeout(PATIENCE):
                await bus.publish(lab.topics.device_up(DEVICE, "packet", EDGE), bytes(2 << 20))
        answered = ear.figures("cam-1").counters["windows_answered"]
        assert answered


def damaged(name: str, value: object) -> dict[str, object]:
    return {**sequence(), name: value}


WINDOWS = {
    "NaN": ({"text": {"T": 1, "c": np.zeros(24, np.uint8), "f": np.full((24, 1), np.nan, np.float32)}}, ""),
    "a float32 NaN": (
        {
            "text": {
                "T": 1,
                "c": np.zeros(24, np.uint8),
                "s": np.zeros(0, np.uint16),
                "o": np.zeros(0, np.int16),
                "q": np.zeros((0, 1), np.uint8),
                "f": np.full((24, 1), np.nan, np.float32),
            }
        },
        "NaN",
    ),
    "values that overflow": ({"text": sequence(np.full((3, 24), 3e38))}, "beyond"),
    "values that would overflow later": ({"text": sequence(np.full((3, 24), 1e30))}, "beyond"),
    "a wrong width": ({"text": sequence(np.ones((3, 7)))}, "24"),
    "a wrong dtype": ({"text": damaged("q", np.zeros((24, 5), np.int16))}, "field q"),
    "a wrong shape": ({"text": damaged("s", np.zeros(3, np.uint16))}, "field s"),
    "codes missing": ({"text": {"T": 5}}, "field"),
    "steps of no number": ({"text": damaged("T", "five")}, "steps"),
    "no step": ({"text": sequence(np.zeros((0, 24)))}, "without a single step"),
    "no modality": ({}, "without a single step"),
    "too many steps": ({"text": sequence(np.ones((5000, 24)))}, "shorter windows"),
}


@pytest.mark.parametrize("name", WINDOWS)
async def test_a_bad_window_is_refused_and_so_freed(lab, name):
    """Its prediction says `refused` and why, so that a device does not send it for ever; the edge goes on."""
    sequences, reason = WINDOWS[name]
    seq = list(WINDOWS).index(name) + 100
    bad = packet(seq)
    bad = bad.model_copy(update={"windows": (bad.windows[0].model_copy(update={"sequences": sequences}),)})
    async with stranger(lab) as ear:
        await ear.bus.publish(lab.topics.device_up(DEVICE, "packet", EDGE), bad.encode())
        await until(lambda: [p for p in ear.of(Prediction, DEVICE) if p.seq == seq])
        answer = next(p for p in ear.of(Prediction, DEVICE) if p.seq == seq)
        assert answer.status == "refused"
        assert reason in answer.reason


async def test_a_duplicate_is_answered_from_memory(lab):
    """The same (epoch, seq) again: the same answer again, counted, and inferred once."""
    async with stranger(lab) as ear:
        before = ear.figures(EDGE).counters["duplicates"]
        for _ in range(3):
            await ear.bus.publish(lab.topics.device_up(DEVICE, "packet", EDGE), packet(seq=900).encode())
            await until(lambda: [p for p in ear.of(Prediction, DEVICE) if p.seq == 900])
        await until(lambda: ear.figures(EDGE).counters["duplicates"] == before + 2)
        answers = [p for p in ear.of(Prediction, DEVICE) if p.seq == 900]
        assert len({(p.score, p.timings.answered_at) for p in answers}) == 1


async def test_an_epoch_zero_is_an_epoch_too(lab):
    """A node of another make may count from 0: its answer is a prediction like any other."""
    async with connect(lab.broker, "zero") as bus:
        await bus.wait_connected(5)
        answers = await bus.subscribe(lab.topics.device_inbox("zero"))
        sent = packet(seq=0, epoch=0).model_copy(update={"device": "zero"})
        async with stranger(lab), asyncio.timeout(PATIENCE):
            await bus.publish(lab.topics.device_up("zero", "packet", EDGE), sent.encode())
            answer = await anext(answers)
        assert lab.topics.parse(answer.topic).kind == "prediction"
        assert Prediction.decode(answer.payload).status == "answered"


GARBAGE = {"noise": b"\xff\x00 noise", "another map": codec.encode({"what": 1}), "truncated": State(
    state="online", session=1, role="device").encode()[:-3]}  # fmt: skip
TO_EDGE = ("state", "profile", "feedback", "update", "blob_request")
FROM_CLOUD = ("verdict", "blob_request")
TO_DEVICE = ("config", "prediction", "refusal")  # one that does not train ignores the rest


def places(lab: Lab) -> dict[str, tuple[str, str]]:
    """Every topic that a tier listens to, with the node that must count what cannot be read there."""
    topics = lab.topics
    return {
        **{f"device to edge: {kind}": (topics.device_up(DEVICE, kind, EDGE), EDGE) for kind in TO_EDGE},
        **{f"cloud to edge: {kind}": (topics.edge_down(EDGE, kind), EDGE) for kind in FROM_CLOUD},
        "cloud to all: model": (topics.cloud_all("model"), EDGE),
        **{f"edge to device: {kind}": (topics.device_down("cam-1", kind, EDGE), "cam-1") for kind in TO_DEVICE},
        "stranger to device": (topics.device_down("cam-1", "prediction", "edge-9"), "cam-1"),
        "edge to all: state": (topics.edge_all(EDGE, "state"), "cam-1"),
        "edge to cloud: update": (topics.update(EDGE), "cloud"),
        "edge to cloud: blob_request": (topics.edge_up(EDGE, "blob_request"), "cloud"),
    }


PLACES = list(places(Lab("mqtt://x", Path())))


@pytest.mark.parametrize("place", PLACES)
async def test_garbage_is_counted_and_survived(lab, place):
    """Whatever a tier listens to may carry anything."""
    topic, node = places(lab)[place]
    async with stranger(lab) as ear:
        await until(lambda: ear.figures(node).gauges or ear.figures(node).counters)
        before = ear.figures(node).counters["messages_rejected"]
        for payload in GARBAGE.values():
            await ear.bus.publish(topic, payload)
        await ear.bus.publish(topic, b"")
        await until(lambda: ear.figures(node).counters["messages_rejected"] >= before + len(GARBAGE))


def offer(ear: Ear, delta: np.ndarray, **changes: object) -> UpdateOffer:
    pointer = ear.of(ModelPointer, "cloud")[-1]
    body = changes.pop("body", None) or np.asarray(delta, np.float32).tobytes()
    fields = {
        "id": digest(repr(changes).encode() + body),
        "family": pointer.family,
        "base_version": pointer.version,
        "round": 0,
        "num_examples": {},
        "codec": "float32",
        "sha256": digest(body),
        "size": len(body),
        "inline": body,
        **changes,
    }
    return UpdateOffer.model_validate(fields)


UPDATES = {
    "of the wrong size": (np.zeros(100), {}, "delta of 400 bytes"),
    "with NaN": (np.full(100, np.nan), {}, ""),
    "of another family": (np.zeros(100), {"family": "another"}, "family"),
    "with a wrong hash": (np.zeros(100), {"sha256": "0" * 64}, ""),
    "of an unknown group": (np.zeros(100), {"num_examples": {"none": 3.0}}, ""),
    "of a damaged codec": (np.zeros(100), {"codec": "int8", "num_examples": {"head": 3.0}}, "int8"),
}


@pytest.mark.parametrize("name", UPDATES)
async def test_a_bad_update_of_an_edge_gets_a_verdict(lab, name):
    """Refused with a reason by the cloud, which releases nothing for it."""
    delta, changes, reason = UPDATES[name]
    async with stranger(lab) as ear:
        version = ear.of(ModelPointer, "cloud")[-1].version
        bad = offer(ear, delta, **changes)
        await ear.bus.publish(lab.topics.update("edge-7"), bad.encode())
        await until(lambda: ear.of(Verdict, "edge-7"))
        verdict = next(v for v in ear.of(Verdict, "edge-7") if v.id == bad.id)
        assert not verdict.accepted
        assert reason in verdict.reason
        assert ear.of(ModelPointer, "cloud")[-1].version == version


@pytest.mark.parametrize("name", UPDATES)
async def test_a_bad_update_of_a_device_gets_a_verdict(lab, name):
    """The same at the edge, whose round goes on."""
    delta, changes, _ = UPDATES[name]
    async with stranger(lab) as ear:
        bad = offer(ear, delta, **{"num_examples": {"head": 1.0}, **changes})
        await ear.bus.publish(lab.topics.device_up(DEVICE, "update", EDGE), bad.encode())
        await until(lambda: [v for v in ear.of(Verdict, DEVICE) if v.id == bad.id])
        assert not next(v for v in ear.of(Verdict, DEVICE) if v.id == bad.id).accepted


async def test_an_update_of_an_unknown_round_is_refused(lab):
    """A device that comes back from long ago, or from the future, is told so."""
    async with stranger(lab) as ear:
        size = await parameters(lab, ear)
        bad = offer(ear, np.zeros(size), round=9999, num_examples={"head": 1.0}, codec="int8",
                    body=encode_delta(np.zeros(size, np.float32), "int8")[0])  # fmt: skip
        await ear.bus.publish(lab.topics.device_up(DEVICE, "update", EDGE), bad.encode())
        await until(lambda: [v for v in ear.of(Verdict, DEVICE) if v.id == bad.id])
        assert "9999" in next(v for v in ear.of(Verdict, DEVICE) if v.id == bad.id).reason


async def parameters(lab: Lab, ear: Ear) -> int:
    from megace2_iot.parameters import Layout
    from megace2_iot.tensors import decode_tensors

    pointer = ear.of(ModelPointer, "cloud")[-1]
    blobs = lab.folder / "edges" / EDGE / "blobs"
    return Layout.of(decode_tensors((blobs / pointer.sha256).read_bytes())[0]).size


async def test_a_profile_with_wrong_dims_is_refused_once(lab):
    """With both lists of dimensions; and not again every other second for as long as it is retained."""
    wrong = DeviceProfile(dims={"text": 300, "audio": 12})
    async with stranger(lab) as ear:
        await ear.bus.publish(lab.topics.device_up("wrong-1", "profile", EDGE), wrong.encode())
        await until(lambda: ear.of(Refusal, "wrong-1"))
        (refusal,) = ear.of(Refusal, "wrong-1")
        assert "text 300, audio 12" in refusal.reason
        assert "text 24, audio 12, vision 10" in refusal.reason
        await asyncio.sleep(2.5)
        assert len(ear.of(Refusal, "wrong-1")) == 1


async def test_a_label_for_an_unknown_window_is_counted(lab):
    """A late or mistaken label does no harm."""
    async with stranger(lab) as ear:
        before = ear.figures(EDGE).counters["labels_unmatched"]
        late = Feedback(epoch=7, seq=12345, score=1.0)
        await ear.bus.publish(lab.topics.device_up(DEVICE, "feedback", EDGE), late.encode())
        await until(lambda: ear.figures(EDGE).counters["labels_unmatched"] == before + 1)


async def test_a_release_that_cannot_be_used_is_left(lab):
    """The edge goes on with what it has, and says so."""
    async with stranger(lab) as ear:
        newest = ear.of(ModelPointer, "cloud")[-1]
        bad = newest.model_copy(update={"version": 999, "sha256": newest.stem, "size": newest.stem_size})
        await ear.bus.publish(lab.topics.cloud_all("model"), bad.encode())
        await until(lambda: ear.figures(EDGE).counters["releases_unusable"] == 1)
        assert ear.of(ModelPointer, EDGE)[-1].version == newest.version


async def test_an_edge_that_vanished_is_not_waited_for(lab):
    """It offered a large update and is gone; the next one's update is judged meanwhile."""
    async with stranger(lab) as ear:
        size = 4 * await parameters(lab, ear)
        away = {"inline": None, "size": size, "sha256": "1" * 64, "num_examples": {"head": 1.0}}
        large = offer(ear, np.ones(102)).model_copy(update=away)
        await ear.bus.publish(lab.topics.update("edge-8"), large.encode())
        await until(lambda: any(at.kind == "blob_request" and at.node == "edge-8" for at, _ in ear.heard))
        small = offer(ear, np.zeros(101))
        await ear.bus.publish(lab.topics.update("edge-9"), small.encode())
        await until(lambda: ear.of(Verdict, "edge-9"), 10)
        assert not ear.of(Verdict, "edge-8")


async def test_the_tiers_still_serve_after_all_that(lab):
    """The last test of this file: the edge answers, and nobody restarted."""
    sample = corpus(1)[0]
    async with stranger(lab) as ear:
        sequences = {m: sequence(features.values) for m, features in sample.features.items()}
        await ear.bus.publish(lab.topics.device_up(DEVICE, "packet", EDGE), packet(1000, **sequences).encode())
        await until(lambda: [p for p in ear.of(Prediction, DEVICE) if p.seq == 1000 and p.status == "answered"])
