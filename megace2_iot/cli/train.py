"""`megace2 train`: one method on one data set, over one or several seeds."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megace2_iot.cli.options import Json
from megace2_iot.problems import Problem

if TYPE_CHECKING:
    from megace2_iot.datasets.sample import Dataset
    from megace2_iot.model.runs import RunResult, RunSettings

MEASURES = ("acc2", "f1", "acc7", "mae", "corr")


def command(
    data: Annotated[str, typer.Option(help="'synthetic', or a data set's file or folder.")] = "synthetic",
    method: Annotated[str, typer.Option(help="megace2, a baseline or an ablation; see docs/methods.md.")] = "megace2",
    preset: Annotated[str, typer.Option(help="Of megace2: nano, mult or paper.")] = "nano",
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="How many seeds, one after the other.")] = 1,
    split: Annotated[str, typer.Option(help="official, random (70/10/20 by sample) or speaker.")] = "official",
    vectors: Annotated[Path | None, typer.Option(help="Word vectors for text: GloVe's .txt or an .npz.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the method's own.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=1e-7, help="Default: the method's own.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Default: the method's own.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Epochs without a better validation error; 0: never.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32, or bfloat16 where the processor has it and the model is wide.")
    ] = "float32",
    threads: Annotated[int, typer.Option(min=1, help="Of torch; small models are fastest with one.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the run; an unfinished run in it goes on.")] = Path("runs/train"),
    as_json: Json = False,
) -> None:
    """Train, keep the best checkpoint, and measure it on the test rows."""
    from megace2_iot.cli.experiments.corpus import digest_of
    from megace2_iot.cli.report import versions
    from megace2_iot.model.runs import recommended, saw_labels, use_threads

    use_threads(threads)
    dataset = loaded(data, split, seed, vectors)
    try:
        chosen = recommended(method, seed, preset, leaking=saw_labels(dataset))
    except ValueError as error:
        raise Problem(str(error)) from None
    if precision not in ("float32", "bfloat16"):
        raise Problem(f"--precision {precision}: choose float32 or bfloat16")
    given: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    given["precision"] = precision
    training = replace(chosen.training, **{key: value for key, value in given.items() if value is not None})
    chosen = replace(chosen, training=training, patience=chosen.patience if patience is None else patience)
    runs = [replace(chosen, seed=seed + number) for number in range(seeds)]
    results = _train_all(runs, dataset, out, quiet=as_json)
    report = {
        "command": shlex.join(["megace2", *sys.argv[1:]]),
        "versions": versions(),
        "data": {"name": dataset.name, "sha256": digest_of(dataset), "split": split, "notes": list(dataset.notes)},
        "checkpoint": str(out / "model.safetensors"),
        "runs": [result.to_json() for result in results],
        "mean": summary(results),
    }
    shutil.copyfile(out / f"seed-{seed}" / "best.safetensors", out / "model.safetensors")
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    if as_json:
        print(json.dumps(report))
    else:
        _print(results, dataset, out)


def loaded(data: str, split: str, seed: int, vectors: Path | None) -> Dataset:
    """The data set, split as asked; raises `Problem`."""
    from megace2_iot.datasets import load
    from megace2_iot.datasets.splits import resplit

    try:
        return resplit(load(data, 0, vectors=vectors), split, seed)
    except (OSError, ValueError) as error:
        raise Problem(f"cannot read {data}: {error}") from None


def _train_all(runs: Sequence[RunSettings], dataset: Dataset, out: Path, *, quiet: bool) -> list[RunResult]:
    from megace2_iot.model.runs import Epoch, train

    results = []
    with _interruptions() as raise_again:
        for settings in runs:
            began = time.monotonic()

            def told(epoch: Epoch, settings: RunSettings = settings, began: float = began) -> None:
                raise_again()
                if quiet:
                    return
                judged = "" if epoch.valid is None else f"  validation MAE {epoch.valid:.3f}"
                so_far = f"{time.monotonic() - began:.0f} s"
                number = f"{epoch.number + 1}/{settings.training.epochs}"
                line = f"seed {settings.seed}  epoch {number}  loss {epoch.train:.3f}{judged}  {so_far}"
                print(line, flush=True)

            try:
                results.append(train(settings, dataset, out / f"seed-{settings.seed}", told))
            except KeyboardInterrupt:
                print(f"stopped: the same command goes on in {out}", file=sys.stderr)
                raise
            except ValueError as error:
                raise Problem(str(error)) from None
            except OSError as error:
                raise Problem(f"{out} cannot be used: {error.strerror}; choose another --out") from None
    return results


@contextlib.contextmanager
def _interruptions() -> Iterator[Callable[[], None]]:
    """Ctrl-C ends training at once; where Python swallows it, as in a destructor, what is yielded raises it again."""
    asked = False

    def note(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    def raise_again() -> None:
        if asked:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield raise_again
    finally:
        signal.signal(signal.SIGINT, before)


def summary(results: Sequence[RunResult]) -> dict[str, Any]:
    """Mean and deviation over seeds of each measure; None where a run has none."""
    from megace2_iot.cli.experiments.statistics import spread

    return {name: spread([getattr(r.test, name) if r.test else None for r in results]) for name in MEASURES}


def _print(results: Sequence[RunResult], dataset: Dataset, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{dataset.name}, test rows", title_justify="left")
    for name in ("seed", "epoch", *MEASURES):
        table.add_column(name, justify="right")
    for result in results:
        values = (_figure(getattr(result.test, name) if result.test else None) for name in MEASURES)
        table.add_row(str(result.settings.seed), str(result.chosen + 1), *values)
    if len(results) > 1:
        means = [value if isinstance(value, tuple) else (None, None) for value in summary(results).values()]
        table.add_section()
        table.add_row("mean", "", *(_figure(mean) for mean, _ in means))
        table.add_row("deviation", "", *(_figure(deviation) for _, deviation in means))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Epochs are judged by {results[0].judged_by}.", markup=False)
    for note in dataset.notes:
        console.print(f"- {note}", markup=False)
    console.print(
        f"Checkpoint (seed {results[0].settings.seed}): {out}/model.safetensors; all of it: {out}/report.json"
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
