"""The demo's live view: one table for all tiers, or plain lines where there is no terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from megace2_iot.cli.processes import Child
from megace2_iot.cli.watching import Node, Watch
from megace2_iot.problems import Problem
from megace2_iot.telemetry import Telemetry, merged

if TYPE_CHECKING:
    from megace2_iot.cli.run_demo import Run

REFRESH = 0.5  # s
LINE_EVERY = 5.0  # s between plain progress lines
COLUMNS = ("tier", "state", "/s", "p50", "p95", "queue", "round", "version", "accuracy", "drops")
DROPS = (
    "windows_dropped",
    "windows_lost",
    "windows_shed_full",
    "windows_shed_expired",
    "windows_shed_link",
    "windows_shed_dropped",
    "bus_dropped",
    "answers_dropped",
    "packets_flooded",
    "packets_rejected",
    "windows_rejected",
    "offers_dropped",
    "updates_dropped",
)


def drops(figures: Telemetry) -> int:
    """All that was thrown away."""
    return sum(figures.counters[name] for name in DROPS)


async def progress(run: Run, watch: Watch, children: Sequence[Sequence[Child]], began: float) -> None:
    """Show the run until its time is up; raises `Problem` when a tier ends by itself."""
    console = Console(stderr=run.options.as_json)
    end = began + run.options.seconds
    if console.is_terminal and not run.options.as_json:
        with Live(view(run, watch, began), console=console, refresh_per_second=4) as live:
            while time.monotonic() < end:
                await asyncio.sleep(REFRESH)
                _check(children)
                live.update(view(run, watch, began))
        return
    while time.monotonic() < end:
        await asyncio.sleep(min(LINE_EVERY, max(0.05, end - time.monotonic())))
        _check(children)
        print(
            line(watch, began, run.options.seconds), file=sys.stderr if run.options.as_json else sys.stdout, flush=True
        )


def _check(children: Sequence[Sequence[Child]]) -> None:
    for child in (child for group in children for child in group):
        if child.process.returncode is not None:
            raise Problem(f"{child.name} ended with status {child.process.returncode}:\n{child.last_words()}")


def line(watch: Watch, began: float, seconds: float) -> str:
    """One plain line."""
    devices, edges = watch.total("device"), watch.total("edge")
    version = max((node.version or 0 for node in watch.of_tier("cloud")), default=0)
    return (
        f"{time.monotonic() - began:4.0f}/{seconds:.0f} s  answered {devices.counters['windows_answered']}"
        f"  p50 {_ms(devices, 'end_to_end', 0.5)}  p95 {_ms(devices, 'end_to_end', 0.95)} ms"
        f"  rounds {edges.counters['rounds_closed']}  version {version}  accuracy {_accuracy(watch.of_tier('device'))}"
        f"  drops {drops(devices) + drops(edges)}"
    )


def view(run: Run, watch: Watch, began: float) -> Table:
    """The table: the cloud, each edge, its devices together."""
    passed = time.monotonic() - began
    left = max(0.0, run.options.seconds - passed)
    table = Table(
        title=f"Mega-CE2   {run.dataset.name} at {run.speed:.1f}x   {run.broker_name} broker   {left:.0f} s left",
        caption="ms: fold (cloud), batch (edges), end to end (devices).  Ctrl-C ends the run.",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
        collapse_padding=True,
    )
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("tier", "state") else "right", no_wrap=True)
    for node in watch.of_tier("cloud"):
        rate = node.figures.counters["updates_folded"] / max(passed, 1.0)
        _add(table, "cloud", node.state, rate, node.figures, "fold", version=_text(node.version))
    for edge in watch.of_tier("edge"):
        table.add_section()
        _add_edge(table, edge)
        _add_devices(table, [node for node in watch.of_tier("device") if node.edge == edge.id])
    return table


def _add(
    table: Table,
    tier: str,
    state: str,
    rate: float,
    figures: Telemetry,
    time: str,
    *,
    queue: str = "",
    round: str = "",
    version: str = "",
    accuracy: str = "",
) -> None:
    thrown = drops(figures)
    table.add_row(
        tier, _coloured(state), f"{rate:.1f}", _ms(figures, time, 0.5), _ms(figures, time, 0.95), queue, round,
        version, accuracy, f"[red]{thrown}[/]" if thrown else "0",
    )  # fmt: skip


def _add_edge(table: Table, node: Node) -> None:
    _add(
        table,
        node.id,
        node.state,
        _slope(node),
        node.figures,
        "batch",
        queue=_gauge(node.figures, "windows_queued"),
        round=_text(node.facts.get("round")),
        version=_text(node.version),
        accuracy=str(node.facts.get("gate") or ""),  # who answers: base, adapter, or blind
    )


def _add_devices(table: Table, members: list[Node]) -> None:
    if not members:
        return
    online = sum(node.state == "online" for node in members)
    queue = sum(node.figures.gauges.get("outbox_windows", 0) for node in members)
    _add(
        table,
        f"  {len(members)} devices",
        "online" if online == len(members) else f"{online} online",
        sum(_slope(node) for node in members),
        merged(node.figures for node in members),
        "end_to_end",
        queue=f"{queue:.0f}",
        accuracy=_accuracy(members),
    )


def _slope(node: Node) -> float:
    readings = node.rate.readings
    if len(readings) < 2 or readings[-1][0] == readings[0][0]:
        return 0.0
    return (readings[-1][1] - readings[0][1]) / (readings[-1][0] - readings[0][0])


def _coloured(state: str) -> str:
    colour = {"online": "green", "stopped": "yellow"}.get(state, "red")
    return f"[{colour}]{state}[/]"


def _accuracy(devices: list[Node]) -> str:
    """Of the last answers to rows that no label of is trained on, over all devices."""
    values = [n.figures.gauges["live_accuracy"] for n in devices if "live_accuracy" in n.figures.gauges]
    return f"{sum(values) / len(values):.2f}" if values else "-"


def _ms(figures: Telemetry, name: str, q: float) -> str:
    histogram = figures.histograms.get(name)
    value = histogram.quantile(q) if histogram else None
    return "-" if value is None else f"{1000 * value:.1f}"


def _gauge(figures: Telemetry, name: str) -> str:
    return f"{figures.gauges.get(name, 0):.0f}"


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
