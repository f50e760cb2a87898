"""amqtt as a broker on one port of the loopback, run by an interpreter of its own that has it installed."""

import asyncio
import logging
import sys

from amqtt.broker import Broker  # type: ignore[import-not-found,unused-ignore]


async def main(port: int) -> None:
    logging.disable(logging.CRITICAL)
    listener = {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 100}}
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    broker = Broker({"listeners": listener, "plugins": plugins})
    await broker.start()
    await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1])))
