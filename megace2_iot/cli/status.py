"""`megace2 status`: who is online, in which version."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megace2_iot.cli.options import Broker, Config, IdentityDir, Insecure, Json, common, merged, of_broker, passer_by
from megace2_iot.quality import INDICATORS
from megace2_iot.service import Settings, run

if TYPE_CHECKING:
    from megace2_iot.cli.watching import Node, Watch


def command(
    wait: Annotated[float, typer.Option(min=0.1, help="Seconds to listen for retained messages.")] = 1.0,
    as_json: Json = False,
    broker: Broker = None,
    identity: IdentityDir = None,
    insecure: Insecure = None,
    config: Config = None,
) -> None:
    """Show who is online, in which version, with which figures."""
    settings = Settings(config, merged(of_broker(broker, identity, insecure)))
    topics, address = common(settings)

    async def look() -> None:
        from megace2_iot.bus import connect
        from megace2_iot.cli.watching import Watch

        async with connect(address, passer_by("observer")) as bus:
            await bus.wait_connected(address.timeout * 2)
            watch = Watch(bus, topics)
            following = asyncio.create_task(watch.run())
            await asyncio.sleep(wait)
            following.cancel()
        _print(watch, as_json, address.url)
        if not watch.retained and not as_json:
            print(FEWER, file=sys.stderr)

    sys.exit(run(look, "status"))


FEWER = (
    "nothing retained came: a broker without retained messages under wildcards, or nobody has been here. "
    "Tiers repeat themselves there: look for longer with --wait 20"
)
SHED = {"device": "windows_shed_", "edge": "windows_shed_told_"}  # counters by reason; an edge knows what it was told


def _row(node: Node, watch: Watch) -> dict[str, Any]:
    counters = node.figures.counters
    prefix = SHED.get(node.tier, "none")
    return {
        "tier": node.tier,
        "id": node.id,
        "edge": node.edge,
        "state": node.state,
        "version": node.version if node.version is not None else node.facts.get("version"),
        "windows": counters["windows_answered"] or counters["windows_received"],
        "waiting": int(node.figures.gauges.get("outbox_windows", 0)),
        "shed": {name.removeprefix(prefix): n for name, n in counters.items() if name.startswith(prefix) and n},
        "missing": _judged(node, watch, "missing", "windows_missing"),
        "flooded": _judged(node, watch, "flooded", "packets_flooded"),
        "round": node.facts.get("round"),
        "gate": node.facts.get("gate"),
        "answers": {t: n for t in ("device", "edge", "cloud") if (n := counters[f"answers_by_{t}"])},
        "quality": {name: value for name, value in node.figures.gauges.items() if name in INDICATORS},
        "software": node.software,
    }


def _judged(node: Node, watch: Watch, fact: str, counter: str) -> int:
    """What an edge counts of itself, or of this device: windows that were neither answered nor shed, packets that were
    more than the device may send.
    """
    if node.tier == "edge":
        return node.figures.counters[counter]
    edge = watch.nodes.get(("edge", node.edge))
    told = edge.facts.get(f"{fact}.{node.id}") if edge is not None else None
    return int(told) if isinstance(told, int | float) else 0


def _print(watch: Watch, as_json: bool, url: str) -> None:
    rows = [_row(node, watch) for tier in ("cloud", "edge", "device") for node in watch.of_tier(tier)]
    if as_json:
        print(json.dumps({"nodes": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{url}: {sum(row['state'] == 'online' for row in rows)} online")
    columns = ("tier", "id", "state", "version", "windows", "round", "gate")
    for row in rows:
        if set(row["answers"]) - {"edge"}:  # who else answered
            row["windows"] = f"{row['windows']} (" + ", ".join(f"{n} {t}" for t, n in row["answers"].items()) + ")"
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    console = Console()
    console.print(table if rows else f"nobody has ever been online at {url}")
    for row in rows:
        if row["shed"] or row["missing"] or row["flooded"]:  # else a line a device would say nothing
            console.print(_unanswered(row), highlight=False)


def _unanswered(row: Mapping[str, Any]) -> str:
    """What a node knows of windows that were not answered."""
    shed = ", ".join(f"{count:,} {reason}" for reason, count in row["shed"].items())
    parts = [f"{row['missing']:,} windows are missing"] if row["missing"] else []
    parts += [f"{row['flooded']:,} packets were too many"] if row["flooded"] else []
    parts += [f"{'told of' if row['tier'] == 'edge' else 'shed'} {shed}"] if shed else []
    parts += [f"{row['waiting']:,} wait"] if row["waiting"] else []
    return f"{row['id']}: {'; '.join(parts)}"
