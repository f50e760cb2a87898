"""The streaming device process: memory, time until it is ready, and what it has loaded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.parts import EDGE, TOPICS
from benchmarks.rows import Row
from benchmarks.windows import DIMS, MULT_WIDTH, packet, process
from broker.server import embedded_broker
from broker.settings import EmbeddedSettings
from megace2_iot.blobs import Holder, chunk_tag, digest
from megace2_iot.bus import BrokerSettings, Bus, connect
from megace2_iot.messages import BlobRequest, DeviceConfig, FeaturePacket, Prediction
from megace2_iot.recording import Recorder
from megace2_iot.service import CHILD, READY_FD
from megace2_iot.stem import Stem
from megace2_iot.tensors import encode_tensors

WINDOWS, RATE = 40, 20.0
NOT_WANTED = ("torch", "typer", "rich", "cryptography", "safetensors", "prometheus_client", "matplotlib")
SHIM = """import atexit, os, sys
def _tell():
    with open(os.environ["MODULES_FILE"], "w") as file:
        file.write("\\n".join(sorted(sys.modules)))
atexit.register(_tell)
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """One run of a device: s until it said it was ready, MB resident, and its modules."""

    ready: float
    resident: float
    peak: float
    modules: frozenset[str]


def measure() -> list[Row]:
    module = [sys.executable, "-m", "device_agent"]
    command = [sys.executable, "-m", "megace2_iot.cli", "device"]
    by_module = [asyncio.run(_run(module, plain=False)) for _ in range(3)]
    by_command = [asyncio.run(_run(command, plain=True)) for _ in range(3)]
    seen = by_module[0]
    loaded = sorted(name for name in NOT_WANTED if name in seen.modules | by_command[0].modules)
    libraries = sorted({name.split(".")[0] for name in seen.modules} - set(sys.stdlib_module_names))
    bare = asyncio.run(_bare())
    return [
        Row(
            f"resident after {WINDOWS} windows of Z[0]",
            min(s.resident for s in by_module),
            "MB",
            bare,
            64.0,
            note=f"peak {min(s.peak for s in by_module):.1f} MB; ceiling: numpy, pydantic, aiomqtt and sqlite3 alone",
        ),
        Row("ready, `python -m device_agent`", min(s.ready for s in by_module), "s", target=1.0, note="best of 3"),
        Row("ready, `megace2 device`", min(s.ready for s in by_command), "s", target=1.0, note="best of 3"),
        Row("of what it must not load", len(loaded), "modules", target=0.0, note=", ".join(loaded)),
        Row("loaded", len(seen.modules), "modules", note=", ".join(n for n in libraries if not n.startswith("_"))),
    ]


async def _bare() -> float:
    code = "import numpy, pydantic, aiomqtt, sqlite3; print(open('/proc/self/status').read())"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return _megabytes(out.decode(), "VmRSS")


def _megabytes(status: str, field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


async def _run(command: list[str], *, plain: bool) -> Seen:
    """Start a device from a short recording, answer its windows, stop it."""
    with tempfile.TemporaryDirectory(prefix="megace2-device-") as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(SHIM)
        with Recorder(folder / "windows.rec") as recorder:
            for seq in range(WINDOWS):
                recorder.add(1e9 + seq / RATE, "cam-01", packet("cam-01", seq, process(seq % 4)).encode())
        async with embedded_broker(EmbeddedSettings()) as broker, _edge(broker.url) as answered:
            arguments = _options(folder, broker.url, plain=plain)
            ready, status = await _streamed([*command, *arguments], folder, answered)
            told = (folder / "modules").read_text().splitlines()
            return Seen(ready, _megabytes(status, "VmRSS"), _megabytes(status, "VmHWM"), frozenset(told))


def _options(folder: Path, url: str, *, plain: bool) -> list[str]:
    recording, state = str(folder / "windows.rec"), str(folder / "state")
    if plain:
        return ["--id", "cam-01", "--replay", recording, "--stay", "--no-train", "--state-dir", state, "--broker", url]
    device = {"id": "cam-01", "train": False, "state_dir": state}
    overrides = {"broker": {"url": url}, "replay": {"source": recording, "stay": True}, "device": device}
    return [json.dumps({"overrides": overrides})]


async def _streamed(command: list[str], folder: Path, answered: asyncio.Event) -> tuple[float, str]:
    """s from exec to its word, and its /proc status once every window is answered."""
    reader, writer = os.pipe()
    environment = {**os.environ, READY_FD: str(writer), CHILD: "1", "MODULES_FILE": str(folder / "modules")}
    environment["PYTHONPATH"] = str(folder)
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, pass_fds=(writer,), env=environment
    )
    os.close(writer)
    try:
        await asyncio.to_thread(os.read, reader, 16)
        ready = time.perf_counter() - began
        async with asyncio.timeout(30):
            await answered.wait()
        return ready, Path(f"/proc/{process.pid}/status").read_text()
    finally:
        os.close(reader)
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@contextlib.asynccontextmanager
async def _edge(url: str) -> AsyncIterator[asyncio.Event]:
    """As much of an edge as a streaming device sees; the event is set when every window was answered."""
    stem = Stem.random(DIMS, MULT_WIDTH, seed=0)
    blob = encode_tensors(stem.to_tensors(), {})
    done = asyncio.Event()
    async with connect(BrokerSettings(url=url), EDGE) as bus:
        holder = Holder(bus, lambda asker, sha: TOPICS.edge_all(EDGE, "chunk", chunk_tag(sha)), merge=True)
        holder.offer(digest(blob), blob)
        config = DeviceConfig(
            stage="embedded", relative_bound=0.02, rate=0, train=False, share_labels=False,
            stem=digest(blob), stem_size=len(blob),
        )  # fmt: skip
        await bus.keep(TOPICS.device_down("cam-01", "config", EDGE), config.encode())
        serving = asyncio.create_task(_serve(bus, holder, done)), asyncio.create_task(holder.run())
        try:
            await bus.wait_connected(5)
            yield done
        finally:
            for task in serving:
                task.cancel()
            await asyncio.wait(serving)


async def _serve(bus: Bus, holder: Holder, done: asyncio.Event) -> None:
    left = WINDOWS
    async for delivery in await bus.subscribe(TOPICS.devices_of(EDGE)):
        address = TOPICS.parse(delivery.topic)
        if address.kind == "blob_request":
            holder.ask(address.node, BlobRequest.decode(delivery.payload))
        elif address.kind == "packet":
            got = FeaturePacket.decode(delivery.payload)
            for window in got.windows:
                answer = Prediction(epoch=got.epoch, seq=window.seq, status="answered", score=0.0)
                await bus.publish(TOPICS.device_down(address.node, "prediction", EDGE), answer.encode())
                left -= 1
            if left <= 0:
                done.set()
