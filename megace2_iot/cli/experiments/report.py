"""An experiment's report: what every one records, its files, and the table on a terminal."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from megace2_iot.cli.experiments import page
from megace2_iot.cli.experiments.finished import Result, Results, code, source
from megace2_iot.cli.experiments.request import Request
from megace2_iot.cli.report import versions
from megace2_iot.features import MODALITIES, Modality

if TYPE_CHECKING:
    from megace2_iot.cli.experiments.corpus import Corpora

PIPED = 150  # columns where there is no terminal
Cell = str | float | tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Part:
    """A further table of a report."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Cell]]

    def to_json(self) -> dict[str, Any]:
        return {"title": self.title, "columns": list(self.columns), "rows": [dict(row) for row in self.rows]}


@dataclass(slots=True)
class Report:
    """One experiment's outcome; `rows` are its table, a mean with its deviation where a cell is a pair.

    `readings` are footnotes: by column, the numbers of docs/readings.md that say how the paper is read there.
    """

    name: str
    title: str
    request: Request
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Cell]]
    results: Results
    data: Mapping[str, Any]
    notes: Sequence[str] = ()
    readings: Mapping[str, Sequence[int]] = field(default_factory=dict)
    interrupted: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    more: Sequence[Part] = ()

    @classmethod
    def of_runs(
        cls,
        name: str,
        title: str,
        request: Request,
        corpora: Corpora,
        outcome: tuple[Results, bool],
        columns: Sequence[str],
        rows: Sequence[Mapping[str, Cell]],
        *,
        notes: Sequence[str],
        readings: Mapping[str, Sequence[int]],
        details: Mapping[str, Any],
    ) -> Report:
        """Of what `run_all` returned, on data that stand in the title and whose own notes come last."""
        dataset, (results, interrupted) = corpora.dataset(0), outcome
        whose = "seed 0: " if len(set(corpora.digests.values())) > 1 else ""
        return cls(
            name=name,
            title=on(title, dataset.name, dataset.dims),
            request=request,
            columns=columns,
            rows=rows,
            results=results,
            data={"name": dataset.name, "digests": corpora.digests},
            notes=[*notes, *(whose + note for note in dataset.notes)],
            readings=readings,
            interrupted=interrupted,
            details=details,
        )

    @property
    def runs(self) -> int:
        """How many are finished."""
        return sum(map(len, self.results.values()))

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        runs = [run for of_arm in self.results.values() for run in of_arm]
        return {
            "format": page.FORMAT,
            "experiment": self.name,
            "title": self.title,
            "command": self.request.command,
            "date": time.strftime("%Y-%m-%d"),
            "versions": versions(),
            "code": {**code(), "source": source()},
            "machine": machine(),
            "quick": self.request.quick,
            "seeds": self.request.seeds,
            "runs": self.runs,
            "runs_wanted": len(self.results) * self.request.seeds,
            "interrupted": self.interrupted,
            "made": _made(runs),
            "data": dict(self.data),
            "settings": self.request.settings(),
            "columns": list(self.columns),
            "rows": [dict(row) for row in self.rows],
            "more": [part.to_json() for part in self.more],
            "notes": list(self.notes),
            "readings": {column: list(numbers) for column, numbers in self.readings.items()},
            "pictures": [],
            **self.details,
        }

    def write(self, folder: Path) -> dict[str, Any]:
        """`NAME.json`, `NAME.md` and pictures in the folder; returns what is in the first."""
        found = self.to_json()
        try:
            from megace2_iot.cli.experiments.pictures import draw
        except ModuleNotFoundError:
            found["notes"].append("No pictures: pip install 'megace2-iot[report]'.")
        else:
            found["pictures"] = draw(found, folder)
        (folder / f"{self.name}.json").write_text(json.dumps(found, indent=2) + "\n")
        (folder / f"{self.name}.md").write_text(page.of_one(found, folder))
        return found

    def print(self, folder: Path) -> None:
        """The table on a terminal, as many columns as it has room for."""
        console = Console(width=None if sys.stdout.isatty() else PIPED)
        for part in (Part(self.title, self.columns, self.rows), *self.more):
            _print(part, console)
        for note in self.notes:
            console.print(note, style="dim", highlight=False, markup=False)
        console.print(f"All of it: {folder}/{self.name}.md, {self.name}.json", soft_wrap=True)


def _print(part: Part, console: Console) -> None:
    """One table, as many columns as there is room for."""
    cells = {column: [page.show(row.get(column)) for row in part.rows] for column in part.columns}
    fitting = _fitting(cells, console.width)
    table = Table(title=part.title, title_justify="left")
    for number, column in enumerate(fitting):
        table.add_column(column, justify="right" if number else "left", min_width=_width(column, cells[column]))
    for row in zip(*(cells[column] for column in fitting), strict=True):
        table.add_row(*row)
    console.print(table)
    if missing := [column for column in part.columns if column not in fitting]:
        console.print(f"No room here for: {', '.join(missing)}.", style="dim", highlight=False)


def on(title: str, name: str, dims: Mapping[Modality, int]) -> str:
    """A title with the data that it ran on, and which modalities they have where one is missing."""
    found = "the built-in corpus" if name == "synthetic" else name
    if len(dims) < len(MODALITIES):
        found += f" ({' and '.join(m for m in MODALITIES if m in dims)} only)"
    return f"{title}, here on {found}"


def _fitting(cells: Mapping[str, Sequence[str]], width: int) -> list[str]:
    """The first columns that fit side by side; a head may be broken between its words."""
    fitting, taken = list[str](), 1
    for column, texts in cells.items():
        taken += _width(column, texts) + 3
        if taken > width:
            break
        fitting.append(column)
    return fitting


def _width(column: str, texts: Sequence[str]) -> int:
    return max(map(len, [*texts, *column.split()]))


def machine() -> str:
    """What it ran on, in words."""
    cpu = platform.machine()
    try:
        named = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
        cpu = next(named, cpu).partition(":")[2].strip() or cpu
    except OSError:
        pass
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}"


def _made(runs: Sequence[Result]) -> dict[str, Any]:
    """When, in how many seconds (of a processor), and from which states of the source the runs came."""
    return {
        "cpu_seconds": round(sum(run.get("cpu_seconds", 0.0) for run in runs)),
        "seconds": round(sum(run.get("seconds", 0.0) for run in runs)),
        "dates": sorted({run["date"] for run in runs if "date" in run}),
        "sources": sorted({run["source"] for run in runs if "source" in run}),
    }
