"""`megace2 updates`: what edges offered to the cloud, and what became of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from megace2_iot.cli.asking import ask, clock, visiting
from megace2_iot.cli.options import Config, Json, StateDir
from megace2_iot.problems import Problem

if TYPE_CHECKING:
    from cloud_aggregator.history import Entry

SHOWN = 8  # characters of an id
HEADS = ("id", "edge", "when", "base", "lag", "examples", "norm", "verdict")
WIDTHS = (8, 12, 14, 5, 4, 8, 8, 12)

app = typer.Typer(help="Show the updates that edges offered; release or drop those that are held.")
Id = Annotated[str, typer.Argument(help="Of a held update, or how it begins.", show_default=False)]


@app.callback(invoke_without_command=True)
def listing(
    context: typer.Context,
    quarantined: Annotated[bool, typer.Option("--quarantined", help="Those only that are held.")] = False,
    edge: Annotated[str, typer.Option(help="Those only of one edge.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="So many, the newest.")] = 20,
    as_json: Json = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Show the updates that edges offered; release or drop those that are held."""
    if context.invoked_subcommand is not None:
        return
    from cloud_aggregator.history import entries

    with visiting(config, state_dir) as ledger:
        found = entries(ledger, edge=edge, verdict="quarantined" if quarantined else "", limit=limit)
    if as_json:
        print(json.dumps({"updates": [asdict(entry) for entry in found]}))
        return
    print(_line(HEADS) if found else "no such update")
    for entry in found:
        print(_line(_cells(entry)))
        if entry.reason:
            print(f"{'':>{SHOWN + 1}}{_short(entry.reason, 79 - SHOWN)}")


@app.command()
def release(update: Id, state_dir: StateDir = None, config: Config = None) -> None:
    """Fold a held update in after all; it counts from now on."""
    from cloud_aggregator.history import find

    with visiting(config, state_dir) as ledger:
        print(ask(ledger, "release", _held(find(ledger, update))))


@app.command()
def drop(
    update: Annotated[str, typer.Argument(help="Of a held update, or how it begins.", show_default=False)] = "",
    every: Annotated[bool, typer.Option("--all", help="Give up all that are held.")] = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Give up a held update; its row stays."""
    from cloud_aggregator.history import find

    if bool(update) == every:
        raise Problem("name one update, or give --all")
    with visiting(config, state_dir) as ledger:
        print(ask(ledger, "drop", "*" if every else _held(find(ledger, update))))


def _held(entry: Entry) -> str:
    """The id of an update that is held; raises `Problem` for another one."""
    if entry.verdict != "quarantined":
        raise Problem(f"update {entry.id[:SHOWN]} of {entry.edge} is not held: it was {entry.verdict}")
    return entry.id


def _cells(entry: Entry) -> tuple[str, ...]:
    verdict = f"release {entry.version}" if entry.verdict == "accepted" else entry.verdict
    examples = max(entry.num_examples.values(), default=0.0)
    return (
        entry.id[:SHOWN],
        _short(entry.edge, WIDTHS[1]),
        clock(entry.received_at),
        str(entry.base_version),
        "" if entry.lag is None else str(entry.lag),
        f"{examples:.6g}",
        "" if entry.norm is None else f"{entry.norm:.4g}",
        verdict,
    )


def _line(cells: tuple[str, ...]) -> str:
    """One line of at most 80 columns: words to the left, numbers to the right."""
    sides = "<<<>>>><"
    return " ".join(f"{c:{side}{width}}" for c, side, width in zip(cells, sides, WIDTHS, strict=True)).rstrip()


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
