"""All that was found, over seeds: a table for each thing that is tried, and what the picture of noise is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from megace2_iot.cli.experiments.exposure import accuracy, drawing, words
from megace2_iot.cli.experiments.exposure.finding import Finding
from megace2_iot.cli.experiments.finished import Results
from megace2_iot.cli.experiments.report import Cell, Part
from megace2_iot.cli.experiments.statistics import spread

FIXED = ("from", "coding")  # columns
Merged = list[tuple[Finding, Cell]]  # the first seed's finding, and the figure over seeds


def merged(results: Results) -> Merged:
    """What the runs of all arms and seeds found."""
    seen: dict[tuple[str, str, str, str], list[Finding]] = {}
    for run in chain.from_iterable(results.values()):
        for fields in run["findings"]:
            finding = Finding(**fields)
            seen.setdefault(finding.key, []).append(finding)
    return [(_guessing(every), spread([each.found for each in every])) for every in seen.values()]


def _guessing(every: Sequence[Finding]) -> Finding:
    """The first, with the mean guess of all."""
    guesses = [each.guess for each in every if each.guess is not None]
    mean = float(np.mean(guesses)) if guesses else None
    first = every[0]
    return Finding(first.tried, first.source, first.coding, first.measure, first.found, mean)


def tables(found: Merged) -> list[Part]:
    """A table for each thing that is tried: a row a source and coding, a column a measure, and what guessing gives."""
    return [
        _table(tried, [pair for pair in found if pair[0].tried == tried])
        for tried in dict.fromkeys(each.tried for each, _ in found)
    ]


def _table(tried: str, found: Merged) -> Part:
    measures = list(dict.fromkeys(each.measure for each, _ in found))
    rows: dict[tuple[str, str], dict[str, Cell]] = {}
    guesses: dict[str, dict[str, Cell]] = {}
    for each, cell in found:
        row = rows.setdefault((each.source, each.coding), {"from": each.source, "coding": each.coding})
        row[each.measure] = cell
        if each.guess is not None:
            guesses.setdefault(_clips(each.source), {}).setdefault(each.measure, each.guess)
    told = [{"from": f"guessing{of}", "coding": "", **cells} for of, cells in guesses.items()]
    return Part(tried, (*FIXED, *measures), [*rows.values(), *told])


def _clips(source: str) -> str:
    """Whose clips a guess is about, where a table has two kinds."""
    return next((f", {kind}" for kind in ("recorded clips", "generated clips") if source.endswith(kind)), "")


def picture(found: Merged) -> dict[str, Any]:
    """What the picture of noise is drawn from; nothing before there is both."""
    spreads = [(each, *(cell if isinstance(cell, tuple) else (cell, 0.0))) for each, cell in found]
    panels = []
    for tried, measure, axis in (
        (words.TRIED, words.FIRST, "part of the words read rightly"),
        (accuracy.TRIED, accuracy.ACCURACY, "accuracy on the test rows"),
    ):
        drawn = drawing.lines(spreads, tried, measure)  # type: ignore[arg-type]
        guess = next((each.guess for each, _ in found if (each.tried, each.measure) == (tried, measure)), None)
        if drawn and guess is not None:
            panels.append({"axis": axis, "lines": drawn, "guess": guess})
    return {"noise": panels} if len(panels) == 2 else {}
