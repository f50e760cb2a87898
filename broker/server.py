"""The embedded broker: listening sockets around one router.

    async with embedded_broker(EmbeddedSettings()) as broker:
        print(broker.url)

MQTT 3.1.1 and 5 over TCP, TLS and WebSocket. Sessions and retained messages live as long as the broker, or in a file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

from broker.connection import Connection
from broker.listening import Listening
from broker.persistence import open_journal
from broker.router import Router
from broker.settings import LOOPBACK, EmbeddedSettings
from broker.stats import BrokerStats

TICK = 0.5  # seconds; how late a keepalive or a deadline may be noticed
FAREWELL = 2.0  # seconds that closing connections have at shutdown
HASHING_THREADS = 2  # that check passwords; who waits for them is not read

_log = logging.getLogger("megace2.broker")


class EmbeddedBroker:
    """A running broker: where it listens, and what it counts."""

    def __init__(self, router: Router, listening: Listening, connections: set[Connection]) -> None:
        self._router = router
        self._listening = listening
        self._connections = connections
        self.host, self.port = listening.addresses[0]

    @property
    def url(self) -> str:
        """Of the first listener."""
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """Of every listener, in the order of the settings."""
        return self._listening.urls

    def stats(self) -> BrokerStats:
        return self._router.stats(asyncio.get_running_loop().time())

    async def reload(self) -> None:
        """Read certificates, revocations, users and access lists again, and close connections that they end.

        Raises BrokerError where a file is wrong; everything then stays as it was.
        """
        await self._listening.reload(self._router.reload)
        for connection in list(self._connections):
            if self._is_revoked(connection):
                connection.close("revoked")

    def _is_revoked(self, connection: Connection) -> bool:
        session, tls = connection.conversation.session, connection.listener.tls
        if tls is not None and self._listening.has_revoked(tls, connection.peer_certificate()):
            return True
        certified = connection.conversation.certified is not None
        return session is not None and not self._router.guard.knows(session.identity, certified=certified)


@asynccontextmanager
async def embedded_broker(settings: EmbeddedSettings | None = None) -> AsyncIterator[EmbeddedBroker]:
    """Run a broker in this event loop. Raises BrokerError where it cannot listen or read its files."""
    settings = settings or EmbeddedSettings()
    loop = asyncio.get_running_loop()
    connections: set[Connection] = set()
    async with AsyncExitStack() as stack:
        journal, restore = await stack.enter_async_context(open_journal(settings))
        router = Router(settings, loop.time(), journal)
        restore(router, loop.time())
        threads = stack.enter_context(ThreadPoolExecutor(HASHING_THREADS, "broker passwords"))
        listening = Listening(settings, lambda listener: Connection(router, connections, listener, threads))
        stack.push_async_callback(listening.wait_closed)
        stack.callback(listening.close)
        await listening.open()
        _tell(settings, router, listening)
        stack.push_async_callback(_hang_up, connections)
        housekeeping = asyncio.create_task(_keep_house(router, connections), name="broker housekeeping")
        housekeeping.add_done_callback(lambda task: _stop_serving(task, listening, connections))
        try:
            yield EmbeddedBroker(router, listening, connections)
        finally:
            listening.close()
            housekeeping.cancel()
            await asyncio.wait([housekeeping])
        if not housekeeping.cancelled() and (error := housekeeping.exception()) is not None:
            raise error


async def serve(settings: EmbeddedSettings, *, stop: asyncio.Event) -> None:
    """Run a broker until `stop` is set."""
    async with embedded_broker(settings):
        await stop.wait()


def _tell(settings: EmbeddedSettings, router: Router, listening: Listening) -> None:
    _log.info("listening on %s", ", ".join(listening.urls))
    hosts = {listener.host for listener in settings.all_listeners}
    if router.guard.open and not hosts <= set(LOOPBACK):
        _log.warning("everybody who reaches %s may publish and subscribe: no access rules are set", ", ".join(hosts))


async def _keep_house(router: Router, connections: set[Connection]) -> None:
    """Enforce deadlines, forget old sessions, publish $SYS."""
    loop, interval = asyncio.get_running_loop(), router.settings.sys_interval
    due = loop.time()
    while True:
        router.journal.check()
        now = loop.time()
        for connection in list(connections):
            connection.tick(now)
        router.expire(now)
        if interval and now >= due:
            router.publish_stats(now)
            due = now + interval
        await asyncio.sleep(TICK)


def _stop_serving(task: asyncio.Task[None], listening: Listening, connections: set[Connection]) -> None:
    """A broker without deadlines must not look alive: after a crash its clients are hung up on."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("housekeeping crashed, the broker stops", exc_info=error)
        listening.close()
        for connection in list(connections):
            connection.close("shutdown")


async def _hang_up(connections: set[Connection]) -> None:
    """Close every connection, and wait until the loop has let go of their sockets."""
    for connection in list(connections):
        connection.close("shutdown")
    deadline = asyncio.get_running_loop().time() + FAREWELL
    while connections:
        if asyncio.get_running_loop().time() > deadline:
            for connection in list(connections):
                connection.abort()
        await asyncio.sleep(0.005)
