"""Sound inputs of every format, made by the real encoders: what mutations begin with."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from broker.codec import encode as encode_packet
from broker.lab.certificates import new_signing_key, new_tls_key, public_part
from broker.lab.registry import Enrolled, Registry
from broker.packets import (
    V5,
    Connack,
    Connect,
    Disconnect,
    Pingresp,
    Puback,
    Publish,
    Request,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from broker.properties import Properties
from device_agent.windows import Window
from edge_gateway.dedup import DedupWindow
from megace2_iot import codec, messages
from megace2_iot.features import MODALITIES, Features
from megace2_iot.messages import Gap, PacketWindow, Timings
from megace2_iot.model import checkpoint
from megace2_iot.model.baselines.ef_lstm import EfLstm, EfLstmConfig
from megace2_iot.model.config import ModelConfig, preset
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.parameters import Layout
from megace2_iot.quantize import quantize
from megace2_iot.telemetry import Telemetry
from megace2_iot.tensors import encode_tensors

SHA = "ab" * 32
VALUES = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
VALUES[:, 3] = 0.1  # a channel that is sent as float32
TENSORS = {"text.w": VALUES, "audio.b": np.float32([1, 2]), "text.a": np.float32([[8], [9]])}
LAYOUT = Layout.of(TENSORS)
PACKET_WINDOW = PacketWindow(
    seq=7,
    captured_at=1.5,
    sequences={"text": quantize(VALUES, 0.02).to_fields()},
    quality={"text_words": 3.0},
    score=-1.0,
)
_POINTER = {
    "family": "f", "config": "{}", "version": 3, "sha256": SHA, "size": 9, "stem": SHA, "stem_size": 8,
    "folded": {"edge-1": SHA},
}  # fmt: skip
MESSAGES: tuple[messages.Message, ...] = (
    messages.FeaturePacket(
        device="cam-1", epoch=3, sent_at=2.0, stage="embedded", stem=SHA, windows=(PACKET_WINDOW,),
        gaps=(Gap(first=1, last=4, shed={"full": 4}),), settled=7,
    ),
    messages.State(state="online", session=1, role="device", software="0.1", detail="x"),
    messages.DeviceProfile(dims={"text": 24, "audio": 12}, sensors=("camera",), scene="room"),
    messages.DeviceConfig(stage="features", relative_bound=0.02, rate=3.0, train=True, share_labels=False, stem=SHA),
    messages.Refusal(about="packet", reason="because"),
    messages.Health(
        at=1.0, figures={"counters": {"a": 1}, "histograms": {"h": {"b": [1, 2], "s": 0.5}}}, facts={"v": 1}
    ),
    messages.GapReceipt(epoch=1, gaps=((1, 4), (7, 9))),
    messages.Prediction(
        epoch=1, seq=2, status="answered", score=0.5, label="negative", confidence=0.5, version=1, masked=("audio",),
        scene=("cam-1", "cam-2"), timings=Timings(received_at=1.0, answered_at=2.0),
    ),
    messages.Forward(id=1, stage="features", stem=SHA, window=PACKET_WINDOW),
    messages.CloudAnswer(id=1, score=0.5, confidence=0.5, version=1),
    messages.Feedback(epoch=1, seq=2, score=0.5),
    messages.ModelPointer.model_validate(_POINTER),
    messages.LocalModel.model_validate({**_POINTER, "teacher": 1, "agreement": 0.9}),
    messages.RoundStart(
        round=1, family="f", base_version=2, sha256=SHA, size=9, participants=("cam-1",), deadline=5.0,
        training={"epochs": 1},
    ),
    messages.UpdateOffer(
        id=SHA, family="f", base_version=1, round=1, num_examples={"head": 3.0}, codec="int8", sha256=SHA, size=3,
        inline=b"abc",
    ),
    messages.Verdict(id=SHA, accepted=False, reason="late"),
    messages.BlobRequest(sha256=SHA, chunks=(0, 1)),
    messages.BlobChunk(sha256=SHA, index=1, data=b"data" * 20),
)  # fmt: skip


def figures() -> dict[str, Any]:
    """What a node counts."""
    telemetry = Telemetry()
    telemetry.count("a", 3)
    telemetry.gauge("g", 0.5)
    for seconds in (0.1, 0.2, 9.0):
        telemetry.time("h", seconds)
    return telemetry.snapshot()


def window() -> Window:
    """What an outbox holds."""
    return Window({"text": Features(VALUES, 10.0, 0.5)}, 1.5, 0.5, 0.5, "film", True, {"text_words": 2.0}, 0.1, SHA)


def dedup_state() -> bytes:
    """An edge's file of what it has seen."""
    seen = DedupWindow()
    for seq in (1, 2, 3, 9):
        seen.see(1, seq)
        seen.answer(1, seq, b"answer")
    seen.tell(1, Gap(first=4, last=5, shed={"full": 2}))
    return codec.encode(
        {"cam-1": seen.to_state(), "cam-2": {"epoch": 1, "high": 9, "answered": b"\x05", "answers": []}}
    )


def local_model() -> bytes:
    fields = {"config": "{}", "base": encode_tensors(TENSORS, {}), "graph": b"graph", "prefix": "p.", "samples": 3}
    return codec.encode({**fields, "calibration": [1.0, 0.5], "agreement": 0.9, "mae": 0.1})


# -- data sets and models ---------------------------------------------------------------
def _npz(**columns: npt.ArrayLike) -> bytes:
    file = io.BytesIO()
    np.savez(file, **columns)  # type: ignore[arg-type]
    return file.getvalue()


def table() -> bytes:
    """A table of utterances, as MOSI is kept."""
    count = 6
    return _npz(
        video=np.array([f"v{number // 2}" for number in range(count)]),
        segment=np.arange(count),
        start=np.arange(count, dtype=float),
        score=np.linspace(-1, 1, count),
        split=np.array(["train"] * count),
        **{modality: np.ones((count, 2), np.float32) for modality in MODALITIES},
    )


def sequences() -> bytes:
    """A table of padded sequences."""
    return _npz(text=np.ones((3, 4, 2), np.float32), score=np.zeros(3), split=np.array(["train", "valid", "test"]))


def vectors() -> bytes:
    """Word vectors."""
    return _npz(words=np.array(["it", "good", "<unk>"]), vectors=np.ones((3, 2), np.float32))


def config() -> ModelConfig:
    """A model that is made in a millisecond."""
    return replace(preset("nano", {"text": 3, "audio": 2, "vision": 2}), width=2, heads=1, ffn_ratio=1)


def checkpoints(scratch: Path) -> tuple[bytes, bytes]:
    """Our own model's, and a baseline's."""
    path, found = scratch / "seed.safetensors", list[bytes]()
    for model in (
        CrossModalTransformer(config()),
        EfLstm(EfLstmConfig(dims={"text": 3, "audio": 2, "vision": 2}, words=4, hidden=2, layers=1)),
    ):
        checkpoint.save(path, model)
        found.append(path.read_bytes())
    return found[0], found[1]


def torch_file() -> bytes:
    """Another code's state dict."""
    file = io.BytesIO()
    torch.save({"state_dict": {"module.w": torch.ones(2, 3), "module.b": torch.zeros(2)}}, file)
    return file.getvalue()


# -- a site -----------------------------------------------------------------------------
def registry() -> bytes:
    """A site's nodes and invitations."""
    found = Registry(nodes={"cam-1": Enrolled(id="cam-1", role="device", serials=[7])}, revoked=[5])
    found.invite(Enrolled(id="cam-2", role="device"), 90)
    return found.model_dump_json().encode()


def public_keys() -> tuple[bytes, bytes]:
    """Of TLS and for signing, in PEM."""
    return public_part(new_tls_key()), public_part(new_signing_key())


# -- MQTT -------------------------------------------------------------------------------
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)


def frame(opcode: int, data: bytes) -> bytes:
    """A short WebSocket frame, masked by zeros."""
    return bytes((0x80 | opcode, 0x80 | len(data), 0, 0, 0, 0)) + data


def broker_packets(version: int) -> list[bytes]:
    """One stream of each kind that a client sends, and each alone."""
    more = Properties(user=(("k", "v"),), message_expiry=5, correlation_data=b"c") if version == V5 else Properties()
    packets = (
        Connect("cam-1", keepalive=5, username="u", password=b"p", will=Will("a/b", b"gone", 1, True), level=version),
        Publish("a/b", b"payload", 1, packet_id=3, properties=more),
        Publish("a/b", b"twice", 2, retain=True, packet_id=5),
        Subscribe(4, (Request("a/+", 1), Request("b/#", 0), Request("$share/g/a/#", 2))),
        Unsubscribe(5, ("a/+",)),
    )
    alone = [encode_packet(packet, version) for packet in packets]
    answers = (
        b"\xc0\x00",
        b"\xe0\x00",
        b"\x40\x02\x00\x03",
        b"\x50\x02\x00\x01",
        b"\x62\x02\x00\x05",
        b"\x70\x02\x00\x01",
    )
    return [*alone, b"".join([*alone[:1], alone[3], *alone[1:3]]), b"".join(alone), *answers]


def node_packets(version: int) -> list[bytes]:
    """What a broker sends, each alone and together, and what paho 2.1 made errors of its own of."""
    told = Properties(reason_string="x") if version == V5 else Properties()
    packets = [
        Connack(0, properties=Properties(maximum_packet_size=1 << 20) if version == V5 else Properties()),
        Publish("a/b", b"payload", 1, packet_id=3),
        Suback(1, (1, 0x80), told),
        Unsuback(1, (0,), told) if version == V5 else Unsuback(1, ()),
        Puback(1, 0x10 if version == V5 else 0, told),
        Pingresp(),
    ]
    alone = [encode_packet(packet, version) for packet in packets]
    more = [encode_packet(Disconnect(0x8E, told), version)] if version == V5 else []
    return [*alone, *more, b"".join(alone), b"\x90\x00", b"\x20\x03\x00\x66\x00", b"\xe0\x05\x00\x03\x11\x00\x00"]
