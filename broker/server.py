"""The embedded broker: a listening socket around one router.

    async with embedded_broker(EmbeddedSettings()) as broker:
        print(broker.url)

MQTT 3.1.1, QoS 0 and 1. A subscription to QoS 2 is granted QoS 1; a QoS 2 publication closes its connection. A client
of MQTT 5 is answered return code 1 at once, so that it can come back with 3.1.1. Nothing is written to disk: sessions
and retained messages live as long as the broker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.connection import Connection
from broker.router import Router
from broker.settings import LOOPBACK, Access, EmbeddedSettings, port_in_use
from broker.stats import BrokerStats

TICK = 0.5  # seconds; how late a keepalive or a deadline may be noticed
FAREWELL = 2.0  # seconds that closing connections have at shutdown

_log = logging.getLogger("megace2.broker")


class EmbeddedBroker:
    """A running broker: where it listens, and what it counts."""

    def __init__(self, host: str, port: int, router: Router) -> None:
        self.host = host
        self.port = port
        self._router = router

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt://{host}:{self.port}"

    def stats(self) -> BrokerStats:
        return self._router.stats(asyncio.get_running_loop().time())


@asynccontextmanager
async def embedded_broker(settings: EmbeddedSettings | None = None) -> AsyncIterator[EmbeddedBroker]:
    """Run a broker in this event loop. Raises BrokerError where it cannot listen."""
    settings = settings or EmbeddedSettings()
    loop = asyncio.get_running_loop()
    router = Router(settings, loop.time())
    connections: set[Connection] = set()
    server = await _listen(settings, router, connections)
    housekeeping = asyncio.create_task(_keep_house(router, connections), name="broker housekeeping")
    housekeeping.add_done_callback(lambda task: _stop_serving(task, server, connections))
    port = server.sockets[0].getsockname()[1]
    _log.info("listening on %s:%d", settings.host, port)
    if settings.host not in LOOPBACK and settings.access == Access():
        _log.warning("everybody who reaches %s may publish and subscribe: no access rules are set", settings.host)
    try:
        yield EmbeddedBroker(settings.host, port, router)
    finally:
        server.close()
        housekeeping.cancel()
        await asyncio.wait([housekeeping])
        await _hang_up(connections)
        await server.wait_closed()
        if not housekeeping.cancelled() and (error := housekeeping.exception()) is not None:
            raise error


async def serve(settings: EmbeddedSettings, *, stop: asyncio.Event) -> None:
    """Run a broker until `stop` is set."""
    async with embedded_broker(settings):
        await stop.wait()


async def _listen(settings: EmbeddedSettings, router: Router, connections: set[Connection]) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    host, port = settings.host, settings.port
    try:
        return await loop.create_server(lambda: Connection(router, connections), host, port, backlog=512)
    except OSError as error:
        raise port_in_use(host, port, error) from error


async def _keep_house(router: Router, connections: set[Connection]) -> None:
    """Enforce deadlines, forget old sessions, publish $SYS."""
    loop, interval = asyncio.get_running_loop(), router.settings.sys_interval
    due = loop.time()
    while True:
        now = loop.time()
        for connection in list(connections):
            connection.tick(now)
        router.expire(now)
        if interval and now >= due:
            router.publish_stats(now)
            due = now + interval
        await asyncio.sleep(TICK)


def _stop_serving(task: asyncio.Task[None], server: asyncio.Server, connections: set[Connection]) -> None:
    """A broker without deadlines must not look alive: after a crash its clients are hung up on."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("housekeeping crashed, the broker stops", exc_info=error)
        server.close()
        for connection in list(connections):
            connection.close("shutdown")


async def _hang_up(connections: set[Connection]) -> None:
    """Close every connection, and wait until the loop has let go of their sockets."""
    for connection in list(connections):
        connection.close("shutdown", flush=True)
    deadline = asyncio.get_running_loop().time() + FAREWELL
    while connections:
        if asyncio.get_running_loop().time() > deadline:
            for connection in list(connections):
                connection.abort()
        await asyncio.sleep(0.005)
