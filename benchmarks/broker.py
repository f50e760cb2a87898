"""The embedded broker beside Mosquitto: messages a second at QoS 1 through one subscriber, in alternating runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.rows import Row
from broker.mosquitto import MosquittoSettings, private_mosquitto

# Bytes, publishers, messages that each keeps unacknowledged (with more or fewer Mosquitto is slower), and the part of
# Mosquitto's rate to reach.
CASES = ((98_000, 50, 2, 0.7), (200, 10, 16, 0.6))
RUNS, SECONDS = 5, 3.0
MODULE = (sys.executable, "-m", "benchmarks.broker_load")


def measure() -> list[Row]:
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        file = str(Path(name, "sessions.db"))
        async with private_mosquitto(MosquittoSettings()) as mosquitto:
            with _embedded("-") as embedded, _embedded(file) as kept:
                for size, publishers, window, target in CASES:
                    ports = (mosquitto.port, embedded, kept)
                    found = [[_rate(port, publishers, size, window) for port in ports] for _ in range(RUNS)]
                    theirs, ours, on_disk = (median(column) for column in zip(*found, strict=True))
                    what = f"{size:,} bytes, {publishers} publishers"
                    spread = [run[1] / run[0] for run in found]
                    note = f"{RUNS} runs, {min(spread):.2f} to {max(spread):.2f} of Mosquitto in the same run"
                    rows.append(Row(what, ours, "1/s", theirs, target, ">=", "ratio", note))
                    rows.append(Row(f"{what}, sessions kept in a file", on_disk, "1/s", theirs))
    return rows


@contextmanager
def _embedded(file: str) -> Iterator[int]:
    """An embedded broker in a process of its own; its port."""
    with subprocess.Popen((*MODULE, "serve", file), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield int(child.stdout.readline())
        child.communicate(timeout=10)


def _rate(port: int, publishers: int, size: int, window: int) -> float:
    arguments = map(str, (port, publishers, size, window, SECONDS))
    return float(subprocess.run((*MODULE, *arguments), check=True, capture_output=True, text=True).stdout)
