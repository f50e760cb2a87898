"""`megace2 broker`: the embedded MQTT broker of a single-machine lab."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from megace2_iot.cli.options import Config
from megace2_iot.service import Settings, run, tell_ready


def command(
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback let anybody in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one and prints it.")] = 1883,
    max_packet: Annotated[int, typer.Option(min=1024, help="Bytes of the largest packet.")] = 1 << 20,
    config: Config = None,
) -> None:
    """Run the embedded broker (MQTT 3.1.1, QoS 0 and 1) until Ctrl-C."""
    from broker.server import embedded_broker
    from broker.settings import EmbeddedSettings

    Settings(config)  # a mistake in the file is told here too

    async def serve() -> None:
        async with embedded_broker(EmbeddedSettings(host=host, port=port, max_packet_size=max_packet)) as broker:
            print(broker.url, flush=True)
            tell_ready()
            await asyncio.Event().wait()

    sys.exit(run(serve, "broker"))
