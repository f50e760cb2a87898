"""The experiments' pictures, drawn from a report's JSON: curves, and dots with the paper's beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: no display is needed

from matplotlib import pyplot as plt  # the backend is chosen first

OURS, PAPER, GRID = "#1768ac", "#c2552d", "#e4e7eb"
BESIDE = 0.1  # rows that the two dots of a row stand apart, or their deviations hide each other
AXES = (("at", 1.0, "virtual seconds"), ("rounds", 1.0, "rounds of an edge (mean)"), ("bytes", 1e6, "MB sent"))
SETTINGS: dict[Any, Any] = {"svg.hashsalt": "megace2", "font.size": 9}  # equal figures make equal files
Record = Mapping[str, Any]


def draw(report: Record, folder: Path) -> list[str]:
    """The pictures of a report, as files in the folder; their names."""
    with plt.rc_context(SETTINGS):
        if "curves" in report:
            figure = _curves(report["curves"], report["panels"])
        elif "dots" in report:
            figure = _dots(report["rows"], report["columns"][0], report["dots"])
        elif "noise" in report:
            from megace2_iot.cli.experiments.exposure import drawing  # needs more than the others: av

            figure = drawing.figure(report["noise"])
        else:
            return []
        if figure is None:
            return []
        name = f"{report['experiment']}.svg"
        figure.savefig(folder / name, metadata={"Date": None})
        plt.close(figure)
    return [name]


def _curves(curves: Record, panels: Mapping[str, Sequence[str]]) -> Any:
    """Accuracy by time, rounds and bytes, a row a panel: a line an arm, with its deviation over seeds."""
    known = {title: arms for title, arms in panels.items() if arms}
    if not known:
        return None
    figure, grid = plt.subplots(
        len(known), len(AXES), figsize=(12, 3.0 * len(known)), layout="constrained", sharey=True, squeeze=False
    )
    for places, (title, arms) in zip(grid, known.items(), strict=True):
        for axes, (axis, unit, label) in zip(places, AXES, strict=True):
            for number, arm in enumerate(arms):
                if axis in curves[arm]:
                    _line(axes, curves[arm][axis], unit, arm, f"C{number}")
            axes.set(xlabel=label)
            _bare(axes)
        places[-1].set_xscale("log")  # bytes
        places[-1].set_xlim(left=1.0)
        places[0].set_ylabel("accuracy")
        places[0].set_title(title, loc="left", fontsize=10)
        handles, labels = places[0].get_legend_handles_labels()
        places[-1].legend(handles, labels, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _line(axes: Any, line: Sequence[Sequence[float]], unit: float, title: str, colour: str) -> None:
    at, mean, deviation = line
    places = [value / unit for value in at]
    axes.plot(places, mean, color=colour, lw=1.3, label=title)
    if any(deviation):
        low, high = zip(*((m - d, m + d) for m, d in zip(mean, deviation, strict=True)), strict=True)
        axes.fill_between(places, low, high, color=colour, alpha=0.1, lw=0)


def _dots(rows: Sequence[Record], named: str, dots: Mapping[str, Mapping[str, Any]]) -> Any:
    """A row a method: each of the two `dots` (`label`, the first's `axis`) is a column of the report, ± deviation."""
    rows = [row for row in rows if any(row.get(column) is not None for column in dots)]
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(7, 0.7 + 0.27 * len(rows)), layout="constrained")
    kinds = zip(dots.items(), (OURS, PAPER), "oD", (-BESIDE, BESIDE), strict=True)
    for (column, about), colour, mark, shift in kinds:
        for place, row in enumerate(rows):
            if (cell := row.get(column)) is None:
                continue
            mean, deviation = (cell, 0.0) if isinstance(cell, (int, float)) else cell
            first = place == _first(rows, column)
            axes.errorbar(
                mean,
                place + shift,
                xerr=deviation or None,
                fmt=mark,
                ms=5,
                color=colour,
                label=about["label"] if first else None,
            )
    axes.set_yticks(range(len(rows)), [row[named] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first on top
    axes.set_xlabel(next(iter(dots.values()))["axis"])
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _bare(axes)
    return figure


def _first(rows: Sequence[Record], column: str) -> int:
    return next(place for place, row in enumerate(rows) if row.get(column) is not None)


def _bare(axes: Any) -> None:
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
