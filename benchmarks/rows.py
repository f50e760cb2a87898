"""One measured line, its ceiling and target, and how lines are shown."""

from __future__ import annotations

import operator
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

PACKAGES = ("torch", "numpy", "aiomqtt", "paho-mqtt", "msgpack", "zstandard", "pydantic")
TURN = 0.05  # s that one work runs before it is the next one's turn
_SIDES: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Row:
    """A figure. `ceiling` is what the raw thing reaches in the same run; `target` judges `of` the ratio or the figure.

    Without a target a row is context for the others.
    """

    what: str
    measured: float
    unit: str
    ceiling: float | None = None
    target: float | None = None
    side: Literal["<=", ">="] = "<="
    of: Literal["measured", "ratio"] = "measured"
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.measured / self.ceiling if self.ceiling else None

    @property
    def met(self) -> bool | None:
        judged = self.ratio if self.of == "ratio" else self.measured
        return None if self.target is None or judged is None else _SIDES[self.side](judged, self.target)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


def machine() -> dict[str, Any]:
    """Where and with what this run was made; the load tells how quiet the machine was."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        **{package: version(package) for package in PACKAGES},
    }


def show(console: Console, title: str, rows: Sequence[Row]) -> None:
    """One benchmark's table."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("what", overflow="fold")
    for name in ("measured", "unit", "ceiling", "ratio", "target"):
        table.add_column(name, justify="left" if name == "unit" else "right", no_wrap=True)
    table.add_column("met")
    for row in rows:
        target = "" if row.target is None else f"{row.side} {figure(row.target)}" + (" x" if row.of == "ratio" else "")
        met = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[row.met]
        what = row.what + (f"\n[dim]{row.note}[/]" if row.note else "")
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        ceiling = "" if row.ceiling is None else figure(row.ceiling)
        table.add_row(what, figure(row.measured), row.unit, ceiling, ratio, target, met)
    console.print(table)


def figure(value: float) -> str:
    """Four digits that matter."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 3 - len(str(int(abs(value)))) + (abs(value) < 1))}f}"


def in_turn(*works: Callable[[], object], rounds: int = 20, patience: float = 12.0) -> list[float]:
    """s of the fastest of several runs of each. They take turns, so that a busy moment hits all.

    A turn is several runs, for threads of one library still spin when the other begins. After `patience` seconds
    there are no more.
    """
    best = [float("inf")] * len(works)
    began = time.perf_counter()
    for number in range(rounds):
        for place, work in enumerate(works):
            turn = time.perf_counter()
            work()  # warms up
            while True:
                at = time.perf_counter()
                work()
                ended = time.perf_counter()
                best[place] = min(best[place], ended - at)
                if ended - turn > TURN:
                    break
        if number and time.perf_counter() - began > patience:
            break
    return best
