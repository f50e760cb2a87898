"""`megace2 experiment`: the paper's experiments in a simulated federation, over several seeds."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from megace2_iot.cli.experiments import NAMES
from megace2_iot.cli.options import Json
from megace2_iot.problems import Problem


def command(
    name: Annotated[str, typer.Argument(help=f"{', '.join(NAMES)}, or all.")],
    data: Annotated[str, typer.Option(help="A data set's name or path.")] = "synthetic",
    seeds: Annotated[
        int | None, typer.Option(min=1, max=100, help="Runs of each arm; default 3, 1 with --quick.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Deal by label, Dirichlet(alpha); default whole sites and streams.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Model: nano or mult.")] = "nano",
    out: Annotated[Path, typer.Option(help="Folder for results; finished runs in it are not run again.")] = Path(
        "runs/experiments"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="A small site and one seed: minutes instead of hours.")
    ] = False,
    drop_out: Annotated[float, typer.Option(min=0, max=1, help="Chance that a device leaves in a round.")] = 0.0,
    late: Annotated[float, typer.Option(min=0, max=1, help="Chance that a training takes 5 times as long.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Run an experiment of the paper, or all; Ctrl-C reports what is there, and the same command goes on."""
    if name not in (*NAMES, "all"):
        raise Problem(f"no experiment {name!r}: choose one of {', '.join(NAMES)}, or all")
    from megace2_iot.cli.experiments.request import Request

    written = shlex.join(["megace2", *sys.argv[1:]])
    try:
        request = Request(
            out=out,
            data=data,
            seeds=seeds or (1 if quick else 3),
            alpha=alpha,
            preset=preset,
            quick=quick,
            drop_out=drop_out,
            late=late,
            command=written,
        )
    except ValueError as error:
        raise Problem(str(error)) from None
    reports = []
    for chosen in NAMES if name == "all" else (name,):
        report = importlib.import_module(f"megace2_iot.cli.experiments.{chosen}").run(request)
        report.write(out)
        reports.append(report.to_json())
        if not as_json:
            report.print(out)
        if report.interrupted:
            break
    if as_json:
        print(json.dumps(reports[0] if len(reports) == 1 else reports))
