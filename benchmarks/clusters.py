"""Clusters of three RabbitMQ and three NATS nodes beside one Mosquitto: rates, the loop's latency, a node's death."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.rows import Row
from broker.cluster import Cluster
from broker.mosquitto import private_mosquitto
from broker.nats import nats_cluster
from broker.rabbitmq import rabbitmq_cluster
from broker.settings import BrokerError
from megace2_iot.telemetry import merged

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from clusters import Outcome, check_invariant, home_of, loop_with_a_death  # shared with the tests
from tiers import Lab

CASES = ((2_000, 10, 16), (98_000, 10, 2))  # bytes, publishers, messages that each keeps unacknowledged
SECONDS = 5.0
WINDOWS, PAUSE = 60, 0.2
LOAD = (sys.executable, "-m", "benchmarks.broker_load")


def measure() -> list[Row]:
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    rows: list[Row] = []
    async with private_mosquitto() as mosquitto:
        ceiling = [await _rate(mosquitto.port, *case) for case in CASES]
        outcome = await _loop(mosquitto.url, _nothing)
        check_invariant(outcome, WINDOWS)
        rows += _latency(f"Mosquitto {mosquitto.version}", outcome)
    for make in (nats_cluster, rabbitmq_cluster):
        with contextlib.suppress(BrokerError):
            async with make() as cluster:
                rows += await _of_cluster(cluster, ceiling)
    return rows


async def _of_cluster(cluster: Cluster, ceiling: list[float]) -> list[Row]:
    name = f"{cluster.kind} {cluster.version}"
    rows: list[Row] = []
    for (size, publishers, window), best in zip(CASES, ceiling, strict=True):
        found = await _rate(cluster.nodes[0].port, size, publishers, window)
        rows.append(Row(f"{name}: {size:,} bytes at QoS 1", found, "1/s", best, note="ceiling: Mosquitto"))
    outcome = await _loop(cluster.url, cluster.nodes[home_of(cluster, "edge-1")].kill)
    check_invariant(outcome, WINDOWS)
    answers = sorted(outcome.recovery.values())
    twice = outcome.counted("answers_repeated")
    lost = outcome.counted("windows_accepted") - outcome.counted("windows_answered")
    rows += _latency(name, outcome)
    rows.append(Row(f"{name}: a node dies; first device answered again", answers[0], "s"))
    rows.append(Row(f"{name}: a node dies; last device answered again", answers[-1], "s"))
    rows.append(Row(f"{name}: windows lost; answers that came twice: {twice}", lost, "", target=0))
    return rows


def _latency(name: str, outcome: Outcome) -> list[Row]:
    took = merged(device.telemetry for device in outcome.devices).histograms["end_to_end"]
    return [Row(f"{name}: the loop, p{q}", 1e3 * (took.quantile(q / 100) or 0.0), "ms") for q in (50, 95)]


async def _loop(url: str, kill: Callable[[], Awaitable[None]]) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        return await loop_with_a_death(Lab(url, Path(folder)), kill, WINDOWS, PAUSE)


async def _nothing() -> None:
    """One broker has no node to spare."""


async def _rate(port: int, size: int, publishers: int, window: int) -> float:
    arguments = map(str, (port, publishers, size, window, SECONDS))
    process = await asyncio.create_subprocess_exec(*LOAD, *arguments, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    return float(told)
