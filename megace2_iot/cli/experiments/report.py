"""An experiment's report: what every one records, its JSON and Markdown files, and the table on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from megace2_iot.cli.experiments.request import Request
from megace2_iot.cli.report import versions

FORMAT = 1  # of an experiment's JSON
READINGS = "docs/readings.md"
Cell = str | float | tuple[float, float] | None


@dataclass(slots=True)
class Report:
    """One experiment's outcome; `rows` are its table, a mean with its deviation where a cell is a pair."""

    name: str
    title: str
    request: Request
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Cell]]
    runs: int
    wanted: int
    data: Mapping[str, Any]
    notes: Sequence[str] = ()
    pictures: Sequence[str] = ()
    interrupted: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "format": FORMAT,
            "experiment": self.name,
            "title": self.title,
            "command": self.request.command,
            "date": time.strftime("%Y-%m-%d"),
            "versions": versions(),
            "seeds": self.request.seeds,
            "runs": self.runs,
            "runs_wanted": self.wanted,
            "interrupted": self.interrupted,
            "data": dict(self.data),
            "settings": self.request.settings(),
            "rows": [dict(row) for row in self.rows],
            "notes": list(self.notes),
            **self.details,
        }

    def to_markdown(self) -> str:
        """The same for people."""
        found = self.to_json()
        lines = [f"# {self.title}", "", f"`{self.request.command}`, {found['date']}: {self.runs} of {self.wanted} runs"]
        lines[-1] += " (ended by Ctrl-C)." if self.interrupted else "."
        lines += ["", "| " + " | ".join(self.columns) + " |", "|---" * len(self.columns) + "|"]
        lines += ["| " + " | ".join(show(row.get(column)) for column in self.columns) + " |" for row in self.rows]
        lines += ["", *(f"- {note}" for note in self.notes), ""]
        lines += [f"![{picture}]({picture})\n" for picture in self.pictures]
        digests = ", ".join(f"seed {seed} `{digest[:12]}`" for seed, digest in self.data["digests"].items())
        lines += [f"Data: {self.data['name']}, sha256 {digests}.", ""]
        lines += ["Environment: " + ", ".join(f"{name} {number}" for name, number in found["versions"].items()), ""]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """`NAME.json` and `NAME.md` in the folder."""
        (folder / f"{self.name}.json").write_text(json.dumps(self.to_json(), indent=2) + "\n")
        (folder / f"{self.name}.md").write_text(self.to_markdown())

    def print(self, folder: Path) -> None:
        """The table on a terminal."""
        console = Console(width=None if sys.stdout.isatty() else 150)
        table = Table(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*(show(row.get(column)) for column in self.columns))
        console.print(table)
        for note in self.notes:
            console.print(note, style="dim", highlight=False)
        console.print(f"All of it: {folder}/{self.name}.md, {self.name}.json", soft_wrap=True)


def show(cell: Cell) -> str:
    """A figure with three digits behind the point, more for small ones; a pair as mean ± deviation."""
    match cell:
        case None:
            return "-"
        case str():
            return cell
        case (mean, deviation):
            return f"{_figure(mean)} ± {_figure(deviation)}"
        case _:
            return _figure(cell)


def _figure(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
