"""`megace2 label`: send a label that follows its window."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from megace2_iot.cli.options import Broker, Config, IdentityDir, Insecure, common, merged, of_broker, passer_by
from megace2_iot.service import Settings, run


def command(
    score: Annotated[float, typer.Argument(help="The label, on the scale of the data (MOSI: -3 to 3).")],
    device: Annotated[str, typer.Option(help="The device that sent the window.")],
    edge: Annotated[str, typer.Option(help="The edge that answered it.")],
    epoch: Annotated[int, typer.Option(help="Of the prediction.")],
    seq: Annotated[int, typer.Option(help="Of the prediction.")],
    broker: Broker = None,
    identity: IdentityDir = None,
    insecure: Insecure = None,
    config: Config = None,
) -> None:
    """Tell an edge the true score of a window that it answered; it joins the edge's labelled store."""
    settings = Settings(config, merged(of_broker(broker, identity, insecure)))
    topics, address = common(settings)

    async def tell() -> None:
        from megace2_iot.bus import connect
        from megace2_iot.messages import Feedback

        feedback = Feedback(epoch=epoch, seq=seq, score=score)
        async with connect(address, passer_by("labeller")) as bus:
            await bus.wait_connected(address.timeout * 2)
            await bus.publish(topics.device_up(device, "feedback", edge), feedback.encode())

    sys.exit(run(tell, "label"))
