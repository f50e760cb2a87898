"""`megace2 record`: store a live stream."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megace2_iot.cli.options import Broker, Config, IdentityDir, Insecure, common, merged, of_broker, passer_by
from megace2_iot.service import Settings, run

if TYPE_CHECKING:
    from megace2_iot.recording import Recorder

OBSERVER = "recorder"


def command(
    file: Annotated[Path, typer.Argument(help="The new file.")],
    edge: Annotated[str, typer.Option(help="Record what this edge's devices send; '+' for all edges.")] = "+",
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so long; default at Ctrl-C.")] = None,
    broker: Broker = None,
    identity: IdentityDir = None,
    insecure: Insecure = None,
    config: Config = None,
) -> None:
    """Store the packets of a site in a file that 'megace2 replay' plays again."""
    settings = Settings(config, merged(of_broker(broker, identity, insecure)))
    topics, address = common(settings)

    async def record() -> None:
        from megace2_iot.bus import connect
        from megace2_iot.problems import Problem

        if file.exists():
            raise Problem(f"{file} exists: name a new file, recordings are never overwritten")
        async with connect(address, passer_by(OBSERVER)) as bus:
            await bus.wait_connected(address.timeout * 2)
            packets = await bus.subscribe(topics.devices_of(edge, "packet"), limit=4096)
            with _open(file) as recorder:
                try:
                    async with asyncio.timeout(seconds):
                        async for delivery in packets:
                            recorder.add(time.time(), topics.parse(delivery.topic).node, delivery.payload)
                except TimeoutError:
                    pass
                finally:
                    print(f"{recorder.records} packets in {file}, {packets.dropped} dropped", file=sys.stderr)

    sys.exit(run(record, OBSERVER))


def _open(file: Path) -> Recorder:
    from megace2_iot.problems import Problem
    from megace2_iot.recording import Recorder

    try:
        return Recorder(file)
    except OSError as error:
        raise Problem(f"cannot record to {file}: {error.strerror}") from None
