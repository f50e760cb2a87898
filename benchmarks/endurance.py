"""Hours of sensing as fast as it goes: does the device's process, its files or its threads grow?

`python -m benchmarks.endurance 24` plays 24 hours of clips; `python -m benchmarks endurance` half an hour.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.parts import EDGE, TOPICS, tasks
from benchmarks.rows import Row
from broker.server import embedded_broker
from broker.settings import EmbeddedSettings
from megace2_iot.bus import BrokerSettings, Bus, connect
from megace2_iot.messages import DeviceConfig, FeaturePacket, Prediction
from megace2_iot.service import CHILD

HOURS = 0.5
SAMPLES = 40  # looks at the process over the whole run
SETTLED = 0.2  # part of the run after which nothing may grow


@dataclass(frozen=True, slots=True)
class Look:
    """The device's process at one moment."""

    media: float  # h that were sensed
    resident: float  # MB
    descriptors: int
    threads: int
    state: float  # MB of its files


def measure(hours: float = HOURS) -> list[Row]:
    began = time.monotonic()
    looks, answered = asyncio.run(_run(hours))
    took = time.monotonic() - began
    settled = [look for look in looks if look.media >= SETTLED * hours]
    first, last = settled[0], settled[-1]
    grown = last.resident - first.resident
    return [
        Row(
            f"resident, {last.media:.1f} h sensed in {took / 60:.1f} min: growth after the first {100 * SETTLED:g} %",
            grown,
            "MB",
            target=5.0,
            note=f"{first.resident:.1f} to {last.resident:.1f} MB, {answered:,} windows answered",
        ),
        Row("open files, growth", last.descriptors - first.descriptors, "", target=0.0, note=f"{last.descriptors}"),
        Row("threads, growth", last.threads - first.threads, "", target=0.0, note=f"{last.threads}"),
        Row("files on disk, growth", last.state - first.state, "MB", target=1.0, note=f"{last.state:.2f} MB"),
    ]


async def _run(hours: float) -> tuple[list[Look], int]:
    """Play clips for ever, answer every window, look at the process now and then."""
    data = os.environ.get("MEGACE2_DATA", "")
    clips = Path(data, "clips")
    source = f"clips:{clips}" if data and clips.is_dir() else "synthetic"
    with tempfile.TemporaryDirectory(prefix="megace2-endurance-") as name:
        state = Path(name) / "state"
        async with embedded_broker(EmbeddedSettings()) as broker, connect(BrokerSettings(url=broker.url), EDGE) as bus:
            config = DeviceConfig(stage="features", relative_bound=0.02, rate=0, train=False, share_labels=False)
            await bus.keep(TOPICS.device_down("cam-01", "config", EDGE), config.encode())
            device = {"id": "cam-01", "train": False, "sources": [source], "state_dir": str(state)}
            overrides = {"broker": {"url": broker.url}, "device": device, "replay": {"repeat": True, "speed": 0}}
            seen = _Seen()
            async with tasks(_answer(bus, seen)):
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "device_agent", json.dumps({"overrides": overrides}),
                    stdin=asyncio.subprocess.PIPE, env={**os.environ, CHILD: "1"},
                )  # fmt: skip
                try:
                    looks = await _watch(process.pid, state, seen, hours)
                finally:
                    assert process.stdin is not None
                    process.stdin.close()
                    await process.wait()
    return looks, seen.windows


@dataclass(slots=True)
class _Seen:
    windows: int = 0
    media: float = 0.0  # s, of all rows of sound or pictures


async def _watch(pid: int, state: Path, seen: _Seen, hours: float) -> list[Look]:
    looks: list[Look] = []
    while not looks or looks[-1].media < hours:
        await asyncio.sleep(0.5)
        media = seen.media / 3600
        if media >= hours * (len(looks) + 1) / SAMPLES:
            status = Path(f"/proc/{pid}/status").read_text()
            told = {
                line.split(":")[0]: line.split()[1] for line in status.splitlines() if ":" in line and line.split()[1:]
            }
            size = sum(path.stat().st_size for path in state.rglob("*") if path.is_file()) / 1e6
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            looks.append(Look(media, int(told["VmRSS"]) / 1024, files, int(told["Threads"]), size))
    return looks


async def _answer(bus: Bus, seen: _Seen) -> None:
    async for delivery in await bus.subscribe(TOPICS.devices_of(EDGE, "packet"), limit=4096, patient=True):
        packet = FeaturePacket.decode(delivery.payload)
        device = TOPICS.parse(delivery.topic).node
        for window in packet.windows:
            seen.windows += 1
            rows = {m: fields["T"] for m, fields in window.sequences.items()}
            seen.media += max(rows.get("audio", 0) / 12.5, rows.get("vision", 0) / 15)
            answer = Prediction(epoch=packet.epoch, seq=window.seq, status="answered", score=0.0)
            await bus.publish(TOPICS.device_down(device, "prediction", EDGE), answer.encode())


if __name__ == "__main__":
    for row in measure(float(sys.argv[1]) if len(sys.argv) > 1 else HOURS):
        print(f"{row.what}: {row.measured:.2f} {row.unit} ({row.note})")
