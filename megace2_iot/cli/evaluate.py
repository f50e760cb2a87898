"""`megace2 evaluate`: a checkpoint on a data set's rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from megace2_iot.cli.options import Json
from megace2_iot.cli.train import loaded
from megace2_iot.problems import Problem

SHOWN = ("n", "acc2", "f1", "f1_macro", "acc2_non0", "f1_non0", "acc7", "f1_7", "acc5", "mae", "corr")


def command(
    checkpoint: Annotated[Path, typer.Argument(help="A safetensors checkpoint of megace2 train or import.")],
    data: Annotated[str, typer.Option(help="'synthetic', or a data set's file or folder.")],
    rows: Annotated[str, typer.Option(help="train, valid, test or all.")] = "test",
    split: Annotated[str, typer.Option(help="official, random (70/10/20 by sample) or speaker.")] = "official",
    seed: Annotated[int, typer.Option(min=0, help="Of the split.")] = 0,
    vectors: Annotated[Path | None, typer.Option(help="Word vectors for text: GloVe's .txt or an .npz.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a checkpoint, beside ridge regression on the same rows where the data have train rows."""
    if rows not in ("train", "valid", "test", "all"):
        raise Problem(f"no rows {rows!r}: choose train, valid, test or all")
    found = evaluate(checkpoint, data, rows, split, seed, vectors)
    if as_json:
        print(json.dumps(found))
        return
    _print(found)


def evaluate(checkpoint: Path, data: str, rows: str, split: str, seed: int, vectors: Path | None) -> dict[str, Any]:
    """The measures, and the anchor's; raises `Problem`."""
    from megace2_iot.cli.experiments.corpus import digest_of
    from megace2_iot.datasets.ridge import anchors, labelled
    from megace2_iot.datasets.sample import SPLITS
    from megace2_iot.model import checkpoint as checkpoints
    from megace2_iot.model.raw import measured, to_examples
    from megace2_iot.model.runs import use_threads

    use_threads(1)
    dataset = loaded(data, split, seed, vectors)
    digest = digest_of(dataset)
    try:
        model, dataset = checkpoints.load(checkpoint), _on_its_scale(checkpoint, dataset)
    except (OSError, ValueError) as error:
        raise Problem(f"cannot read {checkpoint}: {error}") from None
    wrong = {m: d for m, d in dataset.dims.items() if model.config.dims.get(m) != d}
    if wrong:
        raise Problem(f"the model takes features {dict(model.config.dims)} wide, {data} has {dict(dataset.dims)}")
    asked = [s for name in SPLITS if rows in (name, "all") for s in dataset.split(name)]
    if not labelled(asked):
        raise Problem(f"{data} has no labelled {rows} rows: choose other ones with --rows")
    saw = sum(sample.features_saw_label for sample in asked)
    ridge = None
    if rows == "test" and labelled(dataset.split("train")):
        ridge = anchors(dataset.split("train"), asked, dataset.dims).ridge.as_dict()
    return {
        "checkpoint": str(checkpoint),
        "data": {"name": dataset.name, "sha256": digest, "rows": rows, "features_saw_label": saw},
        "measures": measured(model, to_examples(asked)).as_dict(),
        "ridge": ridge,
    }


def _on_its_scale(checkpoint: Path, dataset: Any) -> Any:
    """The data standardised as the model's training data were, where the checkpoint says how."""
    from safetensors import safe_open

    from megace2_iot.datasets.scaling import from_json, rescaled

    with safe_open(checkpoint, "np") as file:
        about = file.metadata() or {}
    return rescaled(dataset, from_json(about["scaling"])) if about.get("scaling") else dataset


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    data = found["data"]
    table = Table(title=f"{found['checkpoint']} on the {data['rows']} rows of {data['name']}", title_justify="left")
    table.add_column("measure")
    table.add_column("model", justify="right")
    if found["ridge"]:
        table.add_column("ridge", justify="right")
    for name in SHOWN:
        cells = [found["measures"][name], *([found["ridge"][name]] if found["ridge"] else [])]
        table.add_row(name, *("-" if x is None else f"{x:,}" if name == "n" else f"{x:.3f}" for x in cells))
    console = Console(highlight=False)
    console.print(table)
    if data["features_saw_label"]:
        console.print(
            f"{data['features_saw_label']} of these rows have features that were fitted on their labels: "
            "on them the figures prove nothing."
        )
