"""`megace2 cloud`: the cloud tier."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from megace2_iot.cli.options import (
    Broker,
    Config,
    IdentityDir,
    Insecure,
    Split,
    StateDir,
    Vectors,
    merged,
    of_broker,
)
from megace2_iot.features import MODALITIES
from megace2_iot.service import Settings, find_place, run, tell_ready


def command(
    model: Annotated[Path | None, typer.Option("--model", help="Release 1: a checkpoint instead of a preset.")] = None,
    preset: Annotated[str | None, typer.Option(help="Release 1: nano, mult or paper.")] = None,
    dims: Annotated[
        str | None, typer.Option(help="Widths of release 1's features, as text=300,audio=74,vision=35.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data set whose test rows score each release.")] = None,
    split: Split = None,
    vectors: Vectors = None,
    rule: Annotated[str | None, typer.Option(help="latched, rate, fedasync or fedbuff.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of release 1, and of the split of the data.")] = None,
    state_dir: StateDir = None,
    broker: Broker = None,
    identity: IdentityDir = None,
    insecure: Insecure = None,
    config: Config = None,
) -> None:
    """Run the cloud: fold in each edge's update the moment it arrives, and release the better model."""
    from cloud_aggregator.cloud import CloudSettings, run_cloud

    made = {"preset": preset, "dims": _widths(dims), "seed": seed, "checkpoint": None if model is None else str(model)}
    given = {key: value for key, value in made.items() if value is not None}
    scored = {"data": data, "split": split, "vectors": vectors, "seed": seed}
    cloud = {**scored, "rule": rule, "state_dir": state_dir, "model": given or None}
    settings = Settings(config, merged(of_broker(broker, identity, insecure), {"cloud": cloud}))
    place = find_place(settings)
    chosen = place.named(settings.section("cloud", CloudSettings), "cloud")
    sys.exit(run(lambda: run_cloud(chosen, place.topics, place.broker, ready=tell_ready), "cloud"))


def _widths(text: str | None) -> dict[str, int] | None:
    """`text=300,audio=74` by modality; what is not named is 1 wide, as nobody sends it."""
    if text is None:
        return None
    named = dict(part.strip().partition("=")[::2] for part in text.split(","))
    wrong = [name for name, width in named.items() if name not in MODALITIES or not width.isdigit()]
    if wrong:
        raise typer.BadParameter(
            f"{text!r}: give widths of {', '.join(MODALITIES)}, as text=300,audio=74,vision=35", param_hint="--dims"
        )
    return {modality: int(named.get(modality, 1)) for modality in MODALITIES}
