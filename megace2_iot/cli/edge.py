"""`megace2 edge`: one edge gateway."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from megace2_iot.cli.options import Broker, Config, IdentityDir, Insecure, StateDir, merged, of_broker
from megace2_iot.service import Settings, find_place, run, tell_ready


def command(
    id: Annotated[str | None, typer.Option("--id", help="This edge's node id.")] = None,
    device: Annotated[str | None, typer.Option(help="Where the model runs: auto, cpu or cuda.")] = None,
    answers: Annotated[
        str | None, typer.Option(help="Who answers: edge, local, local_then_edge or confident_local.")
    ] = None,
    state_dir: StateDir = None,
    broker: Broker = None,
    identity: IdentityDir = None,
    insecure: Insecure = None,
    config: Config = None,
) -> None:
    """Run an edge: answer its devices, hold rounds with them, keep a personal adapter."""
    from edge_gateway.gateway import run_edge
    from edge_gateway.settings import EdgeSettings

    scheduling = None if answers is None else {"answers": answers}
    edge = {"id": id, "device": device, "state_dir": state_dir, "scheduling": scheduling}
    settings = Settings(config, merged(of_broker(broker, identity, insecure), {"edge": edge}))
    place = find_place(settings)
    chosen = place.named(settings.section("edge", EdgeSettings), "edge")
    sys.exit(run(lambda: run_edge(chosen, place.topics, place.broker, ready=tell_ready), chosen.id))
