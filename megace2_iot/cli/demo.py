"""`megace2 demo`: devices, edges and a cloud that learn and answer together, in one command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from megace2_iot.cli.options import Json, Split, Vectors
from megace2_iot.problems import Problem


def command(
    devices: Annotated[int, typer.Option(min=1, max=200, help="Devices of each edge.")] = 4,
    edges: Annotated[int, typer.Option(min=1, max=16, help="Edge gateways.")] = 2,
    speed: Annotated[
        float | None, typer.Option(min=0.01, help="Times the data's clock; default fills the run.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=5, help="Length of the run; default 100, 210 with --data.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Model: nano, mult or paper.")] = "nano",
    rule: Annotated[str, typer.Option(help="The cloud's rule: latched, rate, fedasync or fedbuff.")] = "latched",
    data: Annotated[str | None, typer.Option(help="Replay this data set instead of the built-in corpus.")] = None,
    split: Split = None,
    vectors: Vectors = None,
    broker: Annotated[str, typer.Option(help="embedded, mosquitto, or mqtt://host:port.")] = "embedded",
    seed: Annotated[int, typer.Option(min=0, help="Of the corpus, the split and release 1.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for runs.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Run the whole loop on this machine and print a report of what it measured."""
    from megace2_iot.cli.run_demo import DemoOptions, run_demo

    try:
        options = DemoOptions(
            devices=devices,
            edges=edges,
            speed=speed,
            seconds=seconds or (100.0 if data is None else 210.0),
            preset=preset,
            rule=rule,
            data=data,
            split=split or "official",
            vectors=vectors,
            broker=broker,
            seed=seed,
            out=out,
            as_json=as_json,
        )
    except ValueError as error:
        raise Problem(str(error)) from None
    sys.exit(run_demo(options))
