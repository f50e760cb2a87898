"""`megace2 rollback`: an earlier release as the newest."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from megace2_iot.cli.asking import ask, clock, visiting
from megace2_iot.cli.options import Config, Json, StateDir

if TYPE_CHECKING:
    from cloud_aggregator.history import Numbered


def command(
    version: Annotated[int | None, typer.Argument(min=1, help="The release to go back to.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="Of the list: so many, the newest.")] = 20,
    as_json: Json = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Make an earlier release the newest; without a version, list the releases."""
    from cloud_aggregator.history import check_rollback, releases

    with visiting(config, state_dir) as ledger:
        if version is not None:
            check_rollback(ledger, version)
            print(ask(ledger, "rollback", str(version)))
            return
        found = releases(ledger, limit)
    if as_json:
        print(json.dumps({"releases": [asdict(release) for release in found]}))
        return
    print("release  when             acc2     F1    MAE  made by                 can be chosen")
    for release in found:
        print(_line(release, release is found[0]))


def _line(release: Numbered, newest: bool) -> str:
    scores = "".join(f"{release.scores[name]:7.3f}" if name in release.scores else " " * 7 for name in _SCORES)
    maker = release.edge or ("start of the family" if release.source is None else f"rollback to {release.source}")
    when = clock(release.created_at)
    return f"{release.version:7}  {when} {scores}  {maker[:22]:22}  {_state(release, newest)}".rstrip()


_SCORES = ("acc2", "f1", "mae")


def _state(release: Numbered, newest: bool) -> str:
    """Whether `rollback` takes it, and what became of it."""
    if newest:
        return "newest"
    if not release.kept or not release.usable:
        return "no" if release.kept else "no: deleted"
    return "yes" if release.standing else "yes: taken back"
