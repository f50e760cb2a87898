"""Every decoder of untrusted bytes that come over a network: what it may raise, what memory it may take, its seeds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from aiomqtt import ProtocolVersion
from pydantic import ValidationError

from broker.framing import PacketReader
from broker.lab.certificates import Authority, fingerprint, pinned
from broker.lab.enrolment import JoinString, Request
from broker.lab.joining import admission, read_answer
from broker.lab.registry import Enrolled
from broker.lab.site import Site, SiteConfig
from broker.packets import V5, V311, ProtocolError
from broker.settings import BrokerError
from device_agent.local import _Release
from megace2_iot import codec
from megace2_iot.codec import DecodeError
from megace2_iot.deltas import body_sizes, decode_delta, encode_delta
from megace2_iot.identity import load_identity
from megace2_iot.mqtt import _read_publish
from megace2_iot.problems import Problem
from megace2_iot.quantize import Quantized, dequantize, quantize
from megace2_iot.signing import Seal
from megace2_iot.stem import Stem
from megace2_iot.telemetry import Telemetry, merged
from megace2_iot.tensors import decode_tensors, encode_tensors, flat_view
from megace2_iot.topics import Topics
from tests.fuzz import files, seeds, sockets
from tests.fuzz.fuzzer import MiB, Target

TOPIC = "megace2/v1/lab/cloud/all/model"
JOIN = f"megace2://10.0.0.2:8885/cam-1?ca={seeds.SHA}&token=abc".encode()


def envelope(size: int) -> int:
    """A zstd frame may unfold to `DEFAULT_LIMIT`; what is made of that is a few times as much."""
    return 6 * codec.DEFAULT_LIMIT + 64 * size


def targets(scratch: Path) -> tuple[Target, ...]:
    """All of them, and those of files; what they write lies in `scratch`."""
    return (*_messages(), *_models(), *_network(), *_site(scratch), *files.targets(scratch))


# -- what crosses the broker ------------------------------------------------------------
def _messages() -> list[Target]:
    damaged, sound = (DecodeError,), seeds.MESSAGES
    found = [Target("codec", codec.decode, damaged, tuple(one.encode() for one in sound[:4]), envelope)]
    for one in sound:
        name = f"message_{one.kind}"
        found.append(Target(name, type(one).decode, damaged, (one.encode(), one.encode(level=0)), envelope))
    figures = codec.encode(seeds.figures(), level=0)
    found.append(Target("figures", _figures, (DecodeError, ValueError), (figures,), envelope))
    fields = quantize(seeds.VALUES, 0.02).to_fields()
    found.append(Target("quantize", _quantized, (DecodeError, ValueError), (codec.encode(fields, level=0),), envelope))
    return found


def _figures(data: bytes) -> None:
    """What commands make of a node's health: sums and quantiles."""
    whole = merged([Telemetry.from_snapshot(codec.decode(data)), Telemetry()])
    for histogram in whole.histograms.values():
        histogram.quantile(0.99)


def _quantized(data: bytes) -> None:
    """What an edge makes of a sequence: values that are finite, and of the shape that is said."""
    coded = Quantized.from_fields(codec.decode(data))
    if coded.steps_count * coded.channels <= MiB:
        values = dequantize(coded)
        assert values.shape == (coded.steps_count, coded.channels)
        assert np.isfinite(values).all()


# -- what nodes learned -----------------------------------------------------------------
def _models() -> list[Target]:
    wave = np.sin(np.arange(600, dtype=np.float32))
    found = [
        Target(f"delta_{name}", partial(_delta, name), (ValueError,), (encode_delta(wave, name)[0],))
        for name in ("int8", "float32")
    ]
    stem = encode_tensors(Stem.random({"text": 3, "audio": 2}, 4, 0, vocabulary=5).to_tensors(), {})
    found.append(Target("tensors", _tensors, (ValueError,), (encode_tensors(seeds.TENSORS, {"config": "x"}),)))
    found.append(Target("stem", _stem, (ValueError,), (stem,)))
    found.append(Target("local_model", _Release.read, (ValueError, DecodeError), (seeds.local_model(),), envelope))
    return found


def _delta(name: str, data: bytes) -> None:
    least, most = body_sizes(name, 600)
    decoded = decode_delta(data, name, 600)
    assert decoded.shape == (600,)
    assert least <= len(data) <= most or name == "int8"  # a frame may be coded worse than ours


def _tensors(data: bytes) -> None:
    decode_tensors(data)
    flat_view(data, seeds.LAYOUT)


def _stem(data: bytes) -> None:
    """What an edge makes of a stem, and what it then makes of features."""
    stem = Stem.from_tensors(decode_tensors(data)[0])
    with np.errstate(all="ignore"):
        for modality, width in stem.dims.items():
            stem.embed(modality, np.ones((4, min(width, 999)), np.float32))


# -- what a network brings --------------------------------------------------------------
def _network() -> list[Target]:
    streams = {version: tuple(seeds.broker_packets(version)) for version in (V311, V5)}
    sessions = tuple(stream[0] + more for stream in streams.values() for more in stream)
    framed = tuple(seeds.UPGRADE + seeds.frame(2, one) for one in sessions if len(one) < 126)
    return [
        *(Target(f"broker_v{version}", _packets(version), (ProtocolError,), seed) for version, seed in streams.items()),
        Target("broker_connection", sockets.served(websocket=False), (), sessions),
        Target("websocket", sockets.served(websocket=True), (), (*framed, seeds.UPGRADE + seeds.frame(8, b""))),
        Target("node_v4", sockets.node(ProtocolVersion.V311), (), tuple(seeds.node_packets(V311))),
        Target("node_v5", sockets.node(ProtocolVersion.V5), (), tuple(seeds.node_packets(V5))),
        Target("publish", _publish, (), (b"\x00\x03a/b\x00\x07\x00body", b"\x00\x01a\x00\x01body")),
        Target("topics", _topic, (ValueError,), (TOPIC.encode(), b"megace2/v1/lab/device/cam-1/up/packet/edge-1")),
    ]


def _packets(version: int) -> Callable[[bytes], object]:
    return lambda data: PacketReader(MiB, version).feed(data)


def _publish(data: bytes) -> None:
    for command, properties in itertools.product((0x30, 0x32, 0x34), (False, True)):
        try:
            _read_publish(command, data, properties=properties)
        except (ValueError, IndexError):  # each is to be tried
            continue


def _topic(data: bytes) -> None:
    Topics().parse(data.decode("latin1"))


# -- a site of certificates -------------------------------------------------------------
def _site(scratch: Path) -> list[Target]:
    site = Site.create(scratch / "site", SiteConfig(name="lab", hosts=("127.0.0.1",)))
    for node, role in (("cloud", "cloud"), ("cam-1", "device")):
        site.enroll(Enrolled.model_validate({"id": node, "role": role}), scratch / "out")
    seal, cloud = (Seal(scratch / "out" / n, load_identity(scratch / "out" / n)) for n in ("cam-1", "cloud"))
    address = seal.address(TOPIC)
    assert address is not None
    sealed = cloud.outgoing(TOPIC, seeds.MESSAGES[1].encode())
    authority, ticket = site.authority, JoinString.parse(JOIN.decode())
    known = fingerprint(authority.pem)
    request = b'{"want": "admission", "id": "cam-1", "token": "t", "tls": "", "signing": ""}'
    identity = (scratch / "out" / "cam-1" / "node.json").read_bytes()
    answer = b'{"identity": %s, "files": {"node.crt": "x", "password": "y"}}' % identity.replace(b"\n", b"")
    return [
        Target("signing", lambda data: seal.incoming(TOPIC, address, data), (DecodeError,), (sealed, b"")),
        Target("enrolment", Request.model_validate_json, (ValidationError,), (request,)),
        Target("public_key", partial(_certify, authority), (BrokerError,), seeds.public_keys()),
        Target("join", lambda data: JoinString.parse(data.decode("latin1")), (Problem,), (JOIN,)),
        Target("joining", partial(_admitted, ticket), (Problem, ValueError), (answer, b'{"error": "no"}')),
        Target("pinned", lambda data: pinned(data, known), (ValueError,), (authority.pem,)),
    ]


def _certify(authority: Authority, data: bytes) -> None:
    authority.certify(data, "cam-1", "device", "lab", "signing" if len(data) % 2 else "client", days=1)


def _admitted(ticket: JoinString, data: bytes) -> None:
    """What a node makes of the answer to its request to join."""
    admission(read_answer(data, "10.0.0.2:8885"), ticket)
