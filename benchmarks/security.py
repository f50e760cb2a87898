"""What security costs: TLS beside the clear on both brokers, signatures beside bare ed25519, hashes of blobs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from statistics import median

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.rows import Row
from broker.lab.registry import Enrolled
from broker.lab.site import BROKER_CERTIFICATE, BROKER_KEY, PKI, Site, SiteConfig
from broker.mosquitto_process import find_mosquitto, start_mosquitto, stop_mosquitto
from megace2_iot.identity import CA, CERTIFICATE, KEY, load_identity
from megace2_iot.messages import INLINE_LIMIT, ModelPointer, RoundStart
from megace2_iot.offers import make_offer
from megace2_iot.signing import Seal

SIZES = (98_000, 200)  # bytes of a message
SECONDS, RUNS = 2.0, 3
HOW = ("in the clear", "TLS", "TLS, clients' certificates too")
LOAD = (sys.executable, "-m", "benchmarks.security_load")
TURNS = 400  # of each signature
DEVICES, ROUND = 8, 10.0  # in the round whose signatures are counted; s that it takes


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        site = Site.create(Path(name, "site"), SiteConfig(name="lab", hosts=("localhost",)))
        for node, role in (("cloud", "cloud"), ("edge-1", "edge"), ("cam-01", "device")):
            site.enroll(Enrolled.model_validate({"id": node, "role": role}), Path(name, "out"))
        return asyncio.run(_brokers(site, Path(name, "out"))) + _signatures(Path(name, "out")) + _hashes()


# -- TLS ------------------------------------------------------------------------------
async def _brokers(site: Site, out: Path) -> list[Row]:
    pki, client = site.folder / PKI, out / "edge-1"
    files = [client / CA, client / CERTIFICATE, client / KEY]
    shown = [(), files[:1], files]  # by a client, for each way
    rows = []
    server = pki / BROKER_CERTIFICATE, pki / BROKER_KEY, pki / CA
    async with contextlib.AsyncExitStack() as stack:
        brokers = {"embedded": stack.enter_context(_embedded(*server))}
        if find_mosquitto() is not None:
            brokers["Mosquitto"] = await stack.enter_async_context(_mosquitto(*server))
        for name, ports in brokers.items():
            found = {
                size: [[_load(port, size, show) for port, show in zip(ports, shown, strict=True)] for _ in range(RUNS)]
                for size in SIZES
            }
            rows += _rows(name, found)
    return rows


def _rows(broker: str, found: dict[int, list[list[tuple[float, float]]]]) -> list[Row]:
    rows = []
    for size, runs in found.items():
        rates = [median(run[way][0] for run in runs) for way in range(len(HOW))]
        for how, rate in zip(HOW, rates, strict=True):
            note = f"{rate * size / 1e6:.1f} MB/s"
            rows.append(Row(f"{broker}, {size:,} bytes, {how}", rate, "1/s", rates[0], note=note))
    times = [median(run[way][1] for runs in found.values() for run in runs) for way in range(len(HOW))]
    for how, ms in zip(HOW, times, strict=True):
        rows.append(Row(f"{broker}, a connection until CONNACK, {how}", ms, "ms", times[0]))
    return rows


def _load(port: int, size: int, show: list[Path] | tuple[()]) -> tuple[float, float]:
    """Messages a second, and ms of a connection."""
    arguments = (str(port), str(size), str(SECONDS), *map(str, show))
    told = subprocess.run((*LOAD, *arguments), check=True, capture_output=True, text=True).stdout.split()
    return float(told[0]), float(told[1])


@contextlib.contextmanager
def _embedded(*server: Path) -> Iterator[list[int]]:
    """An embedded broker in a process of its own; its ports, one for each way."""
    command = (*LOAD, "serve", *map(str, server))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield [int(port) for port in child.stdout.readline().split()]
        child.communicate(timeout=10)


@contextlib.asynccontextmanager
async def _mosquitto(certificate: Path, key: Path, ca: Path) -> AsyncIterator[list[int]]:
    """The same of Mosquitto."""
    binary, ports = find_mosquitto(), _free_ports()
    assert binary is not None
    tls = [f"certfile {certificate}", f"keyfile {key}"]
    lines = [
        "allow_anonymous true",
        "set_tcp_nodelay true",
        "persistence false",
        "max_inflight_messages 32",
        "max_queued_messages 2000",
        "log_dest none",
        *(f"listener {ports[0]} 127.0.0.1",),
        *(f"listener {ports[1]} 127.0.0.1", *tls),
        *(f"listener {ports[2]} 127.0.0.1", *tls, f"cafile {ca}", "require_certificate true"),
    ]
    if os.geteuid() == 0:
        lines.append("user root")
    conf = ca.parent / "benchmark.conf"
    conf.write_text("\n".join(lines) + "\n")
    process = await start_mosquitto(binary, conf, None)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports[-1])):
                break
            await asyncio.sleep(0.05)
        yield ports
    finally:
        await stop_mosquitto(process, 5.0)


def _free_ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in HOW]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


# -- signatures -----------------------------------------------------------------------
def _signatures(out: Path) -> list[Row]:
    """Of what the tiers sign, as they do it, beside the bare calls with a key at hand."""
    seals = {node: Seal(out / node, load_identity(out / node)) for node in ("cloud", "edge-1", "cam-01")}
    rows, costs = [], []
    for what, sender, topic, body in _messages():
        signed, *times = _sealed(seals[sender], seals["cam-01" if sender == "cloud" else "cloud"], topic, body)
        bare = _bare(body)
        size, note = f"{what}, {len(body):,} bytes", f"{len(signed) - len(body)} bytes longer"
        rows += [Row(f"sign {size}", times[0], "us", bare[0], note=note), Row(f"judge {size}", times[1], "us", bare[1])]
        costs.append(sum(times))
    return [*rows, _share(*costs)]


def _sealed(says: Seal, hears: Seal, topic: str, body: bytes) -> tuple[bytes, float, float]:
    """What goes out, and us to sign and to judge it."""
    signed, address = says.outgoing(topic, body), hears.address(topic)
    assert address is not None
    return signed, _us(lambda: says.outgoing(topic, body)), _us(lambda: hears.incoming(topic, address, signed))


def _bare(body: bytes) -> tuple[float, float]:
    """us of the calls that these need at least."""
    key = Ed25519PrivateKey.generate()
    public, signature = key.public_key(), key.sign(body)
    return _us(lambda: key.sign(body)), _us(lambda: public.verify(signature, body))


def _messages() -> list[tuple[str, str, str, bytes]]:
    """Name, sender, topic and bytes."""
    digest = "0" * 64
    config = '{"preset": "mult", "dims": {"text": 300, "audio": 74, "vision": 35}, "width": 40, "heads": 10}'
    pointer = ModelPointer(
        family=digest, config=config, version=7, sha256=digest, size=6_162_404, stem=digest, stem_size=65_440
    )
    names = tuple(f"cam-{number:02d}" for number in range(DEVICES))
    opened = RoundStart(
        round=3, family=digest, base_version=7, sha256=digest, size=6_162_404, participants=names, deadline=30.0
    )
    offer = make_offer("edge-1", digest, 7, 3, {"head": 10.0}, "int8", os.urandom(INLINE_LIMIT))
    return [
        ("a pointer", "cloud", "megace2/v1/lab/cloud/all/model", pointer.encode()),
        ("a round", "edge-1", "megace2/v1/lab/edge/edge-1/all/round", opened.encode()),
        ("an update inline", "edge-1", "megace2/v1/lab/cloud/updates/edge-1", offer.encode()),
    ]


def _share(pointer: float, opened: float, update: float) -> Row:
    """An edge judges each device's update and signs a verdict, and signs the round and its own update; us of all."""
    spent = DEVICES * (update + pointer) + opened + update + pointer
    what = f"all signatures of a round of {DEVICES} devices whose updates travel inline, of its {ROUND:g} s"
    return Row(what, 100 * spent / 1e6 / ROUND, "%", note=f"{spent / 1000:.1f} ms, both ends together")


def _us(work: Callable[[], object]) -> float:
    """Median microseconds of a call."""
    times = []
    for _ in range(TURNS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e6 * median(times)


# -- hashes ---------------------------------------------------------------------------
def _hashes() -> list[Row]:
    """A blob is hashed by whoever offers it and by whoever pulled it."""
    rows = []
    for what, size in (("a packet of 98 kB", 98_000), ("a model of 50 MB", 50_000_000)):
        data, times = os.urandom(size), []
        for _ in range(max(3, 5_000_000 // size)):
            began = time.perf_counter()
            hashlib.sha256(data).digest()
            times.append(time.perf_counter() - began)
        rows.append(
            Row(f"sha256 of {what}", 1000 * median(times), "ms", note=f"{size / median(times) / 1e6:,.0f} MB/s")
        )
    return rows
