"""`megace2 device`: one device."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from megace2_iot.cli.options import (
    Broker,
    Config,
    IdentityDir,
    Insecure,
    Overrides,
    ScaleOf,
    Split,
    StateDir,
    Vectors,
    merged,
    of_broker,
)


def become_agent(config: Path | None, overrides: Overrides, defaults: Overrides | None = None) -> None:
    """Replace this process by the device agent's: a streaming device carries no command line libraries."""
    file = str(config) if config else None
    given = json.dumps({"file": file, "overrides": overrides, "defaults": defaults or {}}, default=str)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "device_agent", given])


def command(
    id: Annotated[str | None, typer.Option("--id", help="This device's node id.")] = None,
    edge: Annotated[str | None, typer.Option(help="The edge that serves it.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="clips:DIR, file:PATH, camera:DEV, mic:DEV, stdin, topic:TOPIC or synthetic; repeatable."),
    ] = None,
    scene: Annotated[str | None, typer.Option(help="What other devices sense too: samples are joined.")] = None,
    answers: Annotated[str | None, typer.Option(help="edge, local, local_then_edge or confident_local.")] = None,
    show: Annotated[str | None, typer.Option("--print", help="Answers as text, json or none.")] = None,
    replay: Annotated[str | None, typer.Option(help="Play a data set or a recording as its sensors.")] = None,
    split: Split = None,
    vectors: Vectors = None,
    scale_of: ScaleOf = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the split, and of the built-in corpus.")] = None,
    speed: Annotated[float | None, typer.Option(help="Times the data's own clock.")] = None,
    repeat: Annotated[bool | None, typer.Option("--repeat", help="Begin again at the end.")] = None,
    train: Annotated[bool | None, typer.Option("--train/--no-train", help="Take part in rounds.")] = None,
    share_labels: Annotated[float | None, typer.Option(help="Part of the labels that may leave the device.")] = None,
    stay: Annotated[bool | None, typer.Option("--stay", help="Stay online when the stream is over.")] = None,
    state_dir: StateDir = None,
    broker: Broker = None,
    identity: IdentityDir = None,
    insecure: Insecure = None,
    config: Config = None,
) -> None:
    """Run one device: sense or replay, stream windows to its edge, take part in its rounds."""
    device = {
        "id": id,
        "edge": edge,
        "sources": source or None,
        "scene": scene,
        "answers": answers,
        "print_answers": show or ("text" if source else None),
        "train": train,
        "share_labels": share_labels,
        "state_dir": state_dir,
    }
    played = {
        "source": replay,
        "devices": 1,
        "split": split,
        "vectors": vectors,
        "scale_of": scale_of,
        "seed": seed,
        "speed": speed,
        "repeat": repeat,
        "stay": stay,
    }
    sensed = {"vectors": vectors if source else None}
    become_agent(
        config, merged(of_broker(broker, identity, insecure), {"device": device, "replay": played, "sense": sensed})
    )
