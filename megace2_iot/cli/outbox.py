"""`megace2 outbox`: look at what a device has not delivered, and shed some of it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megace2_iot.cli.options import Config, Json, StateDir, merged
from megace2_iot.problems import Problem
from megace2_iot.service import Settings

if TYPE_CHECKING:
    from device_agent.settings import DeviceSettings

Id = Annotated[str | None, typer.Option("--id", help="The device's node id.")]

app = typer.Typer(no_args_is_help=True, help="Look at what a device has not delivered, and shed some of it.")


@app.callback()
def _outbox() -> None:
    """Look at what a device has not delivered, and shed some of it."""


@app.command()
def stats(id: Id = None, state_dir: StateDir = None, as_json: Json = False, config: Config = None) -> None:
    """Show how much waits and for how long, and how every window ended; beside a running device, too."""
    from device_agent.outbox import look
    from device_agent.settings import outbox_path

    found = look.stats(outbox_path(_device(id, state_dir, config)))
    print(json.dumps(found) if as_json else "\n".join(_lines(found)))


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="The oldest so many.")] = 20,
    id: Id = None,
    state_dir: StateDir = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List windows that wait, the oldest first; beside a running device, too."""
    from device_agent.outbox import look
    from device_agent.settings import outbox_path

    found = look.windows(outbox_path(_device(id, state_dir, config)), limit)
    if as_json:
        print(json.dumps({"windows": list(found)}))
        return
    _print(found)


@app.command()
def drop(
    seqs: Annotated[str | None, typer.Option(metavar="FIRST-LAST", help="One, 17, or several, 17-40.")] = None,
    older_than: Annotated[float | None, typer.Option(min=0, help="Captured so many seconds ago, or earlier.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that waits.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    id: Id = None,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Shed windows for good, while the device is stopped; its edge will be told which they were."""
    if (seqs is None and older_than is None) is not everything:
        raise Problem("say what to drop: --seqs FIRST-LAST, --older-than SECONDS or both, or --all")
    from device_agent.outbox import look
    from device_agent.outbox.lock import is_held
    from device_agent.settings import open_outbox, outbox_path

    device = _device(id, state_dir, config)
    first, last = _range(seqs)
    before = float("inf") if older_than is None else time.time() - older_than
    path = outbox_path(device)
    if is_held(path):
        raise Problem(f"{device.id} runs and works on {path}: stop it (systemctl stop, or Ctrl-C), drop, and start it")
    waits = look.stats(path)["windows"]  # says where there is none
    if not yes:
        typer.confirm(f"{path}: {waits:,} windows wait; drop {_named(seqs, older_than)} for good?", abort=True)
    with contextlib.closing(open_outbox(device)) as outbox:
        print(f"{outbox.drop(first, last, before):,} windows dropped, {len(outbox):,} wait")


def _device(id: str | None, state_dir: Path | None, config: Path | None) -> DeviceSettings:
    from device_agent.settings import DeviceSettings

    given = merged({"device": {"id": id, "state_dir": state_dir}})
    return Settings(config, given).section("device", DeviceSettings)


def _range(seqs: str | None) -> tuple[int, int]:
    """First and last seq of `17` or `17-40`."""
    if seqs is None:
        return 0, 2**63 - 1
    first, _, last = seqs.partition("-")
    try:
        found = int(first), int(last or first)
    except ValueError:
        raise Problem(f"--seqs {seqs}: give one seq, or the first and the last: 17-40") from None
    if found[0] > found[1]:
        raise Problem(f"--seqs {seqs}: the first is larger than the last")
    return found


def _named(seqs: str | None, older_than: float | None) -> str:
    """What is to be dropped, in words."""
    parts = [] if seqs is None else [f"seqs {seqs}"]
    parts += [] if older_than is None else [f"those older than {older_than:g} s"]
    return " of ".join(reversed(parts)) or "all"


# -- for people -----------------------------------------------------------------------
def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{found['file']}, epoch {found['epoch']}, {'its device runs' if found['device_runs'] else 'no device runs'}"
    age = "" if found["oldest_age"] is None else f", the oldest for {_duration(found['oldest_age'])}"
    yield f"{found['windows']:,} windows of {_size(found['bytes'])} wait{age}; {_size(found['file_bytes'])} on disk"
    ended = {how: count for how, count in found["totals"].items() if count and how != "accepted"}
    yield f"{found['totals'].get('accepted', 0):,} accepted since it was made: {_listed(ended) or 'none has ended'}"
    if found["gaps"]:
        yield f"{found['gaps']:,} gaps that the edge has not noted: {_listed(found['untold'])}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))


def _size(count: float) -> str:
    return f"{count / (1 << 20):,.1f} MiB" if count >= 1 << 20 else f"{count / 1024:,.1f} KiB"


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def _print(windows: Iterable[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("seq", "captured", "bytes", "modalities", "label"):
        table.add_column(column, justify="left" if column == "modalities" else "right")
    for window in windows:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(window["captured_at"]))
        known = "unreadable" if window["modalities"] is None else ", ".join(window["modalities"])
        label = "" if window["label"] is None else f"{window['label']:g}"
        table.add_row(str(window["seq"]), clock, f"{window['bytes']:,}", known, label)
    Console().print(table if table.row_count else "nothing waits")
