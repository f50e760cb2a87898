"""`megace2 replay`: many devices from one data set."""

from __future__ import annotations

from typing import Annotated

import typer

from megace2_iot.cli.device import become_agent
from megace2_iot.cli.options import (
    Broker,
    Config,
    IdentityDir,
    Insecure,
    ScaleOf,
    Split,
    StateDir,
    Vectors,
    merged,
    of_broker,
)

DEVICES = 4  # where neither the command line nor a file says


def command(
    source: Annotated[str, typer.Argument(help="'synthetic', a data set file, or a recording.")],
    edge: Annotated[str | None, typer.Option(help="The edge that serves them.")] = None,
    devices: Annotated[int | None, typer.Option(min=1, max=1000, help="How many share the data; default 4.")] = None,
    speed: Annotated[float | None, typer.Option(min=0, help="Times the data's clock; 0 as fast as possible.")] = None,
    split: Split = None,
    vectors: Vectors = None,
    scale_of: ScaleOf = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the split, and of the built-in corpus.")] = None,
    share: Annotated[str | None, typer.Option(help="I/N: play the I-th of N edges' parts of the data.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Of the device ids; default the edge's id.")] = None,
    share_labels: Annotated[float | None, typer.Option(help="Part of the labels that may leave a device.")] = None,
    train: Annotated[bool | None, typer.Option("--train/--no-train", help="Take part in rounds.")] = None,
    repeat: Annotated[bool | None, typer.Option("--repeat", help="Begin again at the end.")] = None,
    stay: Annotated[bool | None, typer.Option("--stay", help="Stay online when the stream is over.")] = None,
    state_dir: StateDir = None,
    broker: Broker = None,
    identity: IdentityDir = None,
    insecure: Insecure = None,
    config: Config = None,
) -> None:
    """Replay a data set as the sensor streams of many devices, each with its own connection."""
    index, edges = _part(share)
    played = {
        "source": source,
        "devices": devices,
        "split": split,
        "vectors": vectors,
        "scale_of": scale_of,
        "seed": seed,
        "speed": speed,
        "index": index,
        "edges": edges,
        "prefix": prefix,
        "repeat": repeat,
        "stay": stay,
    }
    device = {"edge": edge, "share_labels": share_labels, "train": train, "state_dir": state_dir}
    overrides = merged(of_broker(broker, identity, insecure), {"replay": played, "device": device})
    become_agent(config, overrides, defaults={"replay": {"devices": DEVICES}})


def _part(share: str | None) -> tuple[int | None, int | None]:
    """`I/N` as the part's index from 0 and the number of parts."""
    if share is None:
        return None, None
    index, _, edges = share.partition("/")
    if not (index.isdigit() and edges.isdigit() and 1 <= int(index) <= int(edges)):
        raise typer.BadParameter(f"{share!r}: give I/N with 1 <= I <= N, as in 1/2", param_hint="--share")
    return int(index) - 1, int(edges)
