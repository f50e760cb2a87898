"""`megace2 experiment`: the paper's experiments, over several seeds, and the page of their results."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megace2_iot.cli.experiments import NAMES
from megace2_iot.cli.options import Json, Vectors
from megace2_iot.problems import Problem

if TYPE_CHECKING:
    from megace2_iot.cli.experiments.request import Request

OF_DATA = tuple(name for name in NAMES if name not in ("table3", "table5"))


def command(
    name: Annotated[str, typer.Argument(help=f"{', '.join(NAMES)}, all, or page: the page alone.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A data set's name or path, default synthetic; NAME=PATH is for one experiment alone. Several times.",
            show_default=False,
        ),
    ] = None,
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
    page: Annotated[
        Path | None, typer.Option(help="Page of all results in --out; default results.md there.", show_default=False)
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small site and one seed: minutes instead of hours.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Run nothing: report what is finished in --out.")] = False,
    drop_out: Annotated[float, typer.Option(min=0, max=1, help="Chance that a device leaves in a round.")] = 0.0,
    late: Annotated[float, typer.Option(min=0, max=1, help="Chance that a training takes 5 times as long.")] = 0.0,
    edges: Annotated[
        int | None, typer.Option(min=1, max=100, help="Of the site; default 2 for tables, else 3, or 2 with --quick.")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Of each edge; default 4, or 3 with --quick.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="official, random (70/10/20 by sample), speaker, or time (within each video).")
    ] = "official",
    vectors: Vectors = None,
    rates: Annotated[
        str, typer.Option(help="table3: Mbit/s of the link; default 1,5,20,100.", show_default=False)
    ] = "",
    users: Annotated[
        str, typer.Option(help="table3: users of the link at once; default 1,10,50.", show_default=False)
    ] = "",
    clips: Annotated[
        Path | None,
        typer.Option(
            help="table3: folder of raw clips; default $MEGACE2_DATA's, else built-in ones.", show_default=False
        ),
    ] = None,
    delay: Annotated[float, typer.Option(min=0, max=2000, help="table3: ms of the link, one way.")] = 10.0,
    cloud_delay: Annotated[
        float, typer.Option(min=0, max=2000, help="table3: ms more, one way, to the cloud that does everything.")
    ] = 0.0,
    cloud_cores: Annotated[
        int, typer.Option(min=0, max=1024, help="table3: cores of that cloud's own; 0: this machine's are shared.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Run an experiment of the paper, or all; Ctrl-C reports what is there, and the same command goes on."""
    if name not in (*NAMES, "all", "page"):
        raise Problem(f"no experiment {name!r}: choose one of {', '.join(NAMES)}, all or page")
    from megace2_iot.cli.experiments.request import Link, Request

    try:
        link = Link(
            rates=tuple(_numbers("--rates", rates)),
            users=tuple(int(count) for count in _numbers("--users", users)),
            clips=clips,
            delay=delay / 1000,
            cloud_delay=cloud_delay / 1000,
            cloud_cores=cloud_cores,
        )
        request = Request(
            out=out,
            seeds=seeds or (1 if quick else 3),
            alpha=alpha,
            preset=preset,
            quick=quick,
            drop_out=drop_out,
            late=late,
            edges=edges,
            devices=devices,
            split=split,
            vectors=vectors,
            show=show,
            link=link,
            command=shlex.join(["megace2", *(word for word in sys.argv[1:] if word != "--show")]),
        )
    except ValueError as error:
        raise Problem(str(error)) from None
    chosen = {"all": NAMES, "page": ()}.get(name, (name,))
    found, failed = _run([replace(request, data=each) for each in _data_of(chosen, data or [])], chosen, as_json)
    path = page or out / "results.md"
    _write_page(path, out, failed, quiet=as_json)
    if as_json:
        one = {"page": str(path)} if name == "page" else next(iter(found), None)
        print(json.dumps(found if name == "all" else one))
    if failed:
        raise Problem("; ".join(f"{of}: {why}" for of, why in failed.items()))


def _numbers(option: str, text: str) -> list[float]:
    """A list such as 1,5,20. Raises ValueError for anything else."""
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise ValueError(f"{option} {text}: give numbers with commas between, as in 1,5,20") from None


def _data_of(chosen: Sequence[str], given: Sequence[str]) -> list[str]:
    """What each of the chosen experiments runs on. Raises `Problem` where that is not there or not clear."""
    common, own = ["synthetic"], dict[str, str]()
    for each in given:
        of, equals, path = each.partition("=")
        if equals and of in OF_DATA:
            own[of] = path
        elif equals and not Path(each).exists():
            raise Problem(f"--data {each}: NAME is one of {', '.join(OF_DATA)}")
        else:
            common.append(each)
    if len(common) > 2:
        raise Problem(f"--data {common[-1]}: {common[1]} is for all already; say for which experiment, as NAME=PATH")
    if unused := set(own) - set(chosen):
        raise Problem(f"--data {min(unused)}=...: this command does not run {min(unused)}")
    found = [own.get(name, common[-1]) for name in chosen]
    for name, path in zip(chosen, found, strict=True):
        if path != "synthetic" and name in OF_DATA and not Path(path).expanduser().exists():
            raise Problem(f"no data set {path!r}: give 'synthetic', or a file or folder (docs/data.md)")
    return found


def _run(requests: Sequence[Request], names: Sequence[str], quiet: bool) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The experiments one after the other: their reports, and why some of several did not run."""
    found, failed = list[dict[str, Any]](), dict[str, str]()
    for name, request in zip(names, requests, strict=True):
        try:
            report = _module_of(name).run(request)
        except Problem as problem:
            if len(names) == 1:
                raise
            failed[name] = str(problem)
            continue
        if request.show and report.results and not report.runs:
            print(f"{name}: nothing is finished with these settings", file=sys.stderr)
            continue
        found.append(report.write(request.out))
        if not quiet:
            report.print(request.out)
        if report.interrupted:
            break
    return found, failed


def _module_of(name: str) -> ModuleType:
    """An experiment's module; raises `Problem` where what it needs is not installed."""
    try:
        return importlib.import_module(f"megace2_iot.cli.experiments.{name}")
    except ModuleNotFoundError as error:
        raise Problem(f"{name} needs {error.name}: pip install 'megace2-iot[all]'") from None


def _write_page(path: Path, out: Path, failed: dict[str, str], *, quiet: bool) -> None:
    from megace2_iot.cli.experiments import page

    page.write(path, out, failed)
    if not quiet:
        print(f"The page of all results: {path}")
