"""`megace2 data`: look at data sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from megace2_iot.cli.options import Json
from megace2_iot.problems import Problem

BAR = 32  # characters of the longest bar of the histogram

app = typer.Typer(no_args_is_help=True, help="Look at data sets.")


@app.callback()
def _data() -> None:
    """Look at data sets."""


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(help="'synthetic', a data set's file or folder, or a recording.")],
    split: Annotated[str, typer.Option(help="official, random (70/10/20 by sample) or speaker.")] = "official",
    seed: Annotated[int, typer.Option(min=0, help="Of the split, and of the built-in corpus.")] = 0,
    vectors: Annotated[Path | None, typer.Option(help="Word vectors: GloVe's .txt or an .npz.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a data set holds: splits, shapes, lengths, values that are no numbers, labels, and leaks."""
    from megace2_iot.datasets.describe import describe
    from megace2_iot.datasets.leak import probe_leak
    from megace2_iot.datasets.splits import check_split, resplit
    from megace2_iot.recording import load_or_read

    try:
        check_split(split)
        dataset = load_or_read(file, seed, vectors=vectors)  # the probe wants the official split
        probes = probe_leak(dataset)
        told = describe(resplit(dataset, split, seed), probes)
    except (OSError, ValueError) as error:
        raise Problem(f"cannot read {file}: {error}") from None
    if as_json:
        print(json.dumps(told))
        return
    _print(told)


def _print(told: Mapping[str, Any]) -> None:
    """The description on a terminal, in 80 columns."""
    from rich.console import Console

    console = Console(width=80, highlight=False)
    shared = told["groups_on_several_sides"]
    console.print(
        f"[bold]{told['name']}[/]: {told['samples']:,} samples of {told['groups']:,} videos or speakers"
        + (f", {shared:,} of them on several sides" if shared else "")
    )
    console.print(_splits(told), _modalities(told), _labels(told), sep="\n")
    for note in told["notes"]:
        console.print(f"- {note}", markup=False)
    console.print(_leak(told), markup=False)


def _splits(told: Mapping[str, Any]) -> Any:
    table = _table("Splits", "split", "samples", "groups", "labelled", "score >= 0")
    for name, part in told["splits"].items():
        positive = "-" if part["positive"] is None else f"{part['positive']:.3f}"
        table.add_row(name, f"{part['samples']:,}", f"{part['groups']:,}", f"{part['labelled']:,}", positive)
    return table


def _modalities(told: Mapping[str, Any]) -> Any:
    table = _table("Features", "modality", "width", "shortest", "median", "longest", "missing", "not finite")
    for name, part in told["modalities"].items():
        steps = (f"{part['steps'][key]:g}" for key in ("shortest", "median", "longest"))
        table.add_row(name, str(part["width"]), *steps, f"{part['missing']:,}", f"{part['replaced']:,}")
    return table


def _labels(told: Mapping[str, Any]) -> Any:
    table = _table("Labels", "score", "samples", "")
    highest = max(told["labels"].values()) or 1
    for label, count in told["labels"].items():
        table.add_row(label, f"{count:,}", "█" * round(BAR * count / highest))
    table.columns[-1].justify = "left"
    if told["unlabelled"]:
        table.add_row("none", f"{told['unlabelled']:,}", "")
    return table


def _leak(told: Mapping[str, Any]) -> str:
    """The probe in one line."""
    if not told["leak"]:
        return "Leak: too few labelled train and test samples of the official split to tell."
    each = (
        f"{name} {found['train']:.3f} between train streams, {found['test']:.3f} on test"
        + (": leaks" if found["leaks"] else "")
        for name, found in told["leak"].items()
    )
    return f"Leak: {'; '.join(each)}."


def _table(title: str, *columns: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table
