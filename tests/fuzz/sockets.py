"""Both ends of an MQTT connection without a network: bytes of a client for the broker, bytes of a broker for a node."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as paho
from aiomqtt import ProtocolVersion

from broker.connection import Connection as Served
from broker.router import Router
from broker.settings import EmbeddedSettings, Listener
from broker.websocket import WebSocketAdapter
from megace2_iot.mqtt import Connection

_log = logging.getLogger("megace2.broker")
TURNS = 4  # of the event loop, after which all is said that is said at once
LATER = 1000.0  # s, beyond every deadline
PATIENCE = 10.0  # s for what needs no waiting


class Loop:
    """An event loop for one target; what it would only log of a callback is raised."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: self._failed.append(context))
        self._failed: list[dict[str, Any]] = []

    def run(self, work: Coroutine[Any, Any, str]) -> str:
        self._failed.clear()
        said = self._loop.run_until_complete(work)
        for context in self._failed:
            raise context.get("exception") or AssertionError(context["message"])
        return said


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


# -- a client's bytes -------------------------------------------------------------------
class _Socket(asyncio.Transport):
    """A socket that takes everything."""

    closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert data, "asyncio does not write nothing"

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = write_eof = close
    pause_reading = resume_reading = set_write_buffer_limits = lambda self, *limits, **named: None  # type: ignore[assignment]

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True


class _Raises(logging.Handler):
    """No client makes the broker log an error."""

    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(record.getMessage())


@contextmanager
def _strict() -> Iterator[None]:
    handler = _Raises(logging.ERROR)
    _log.addHandler(handler)
    try:
        yield
    finally:
        _log.removeHandler(handler)


def served(*, websocket: bool) -> Callable[[bytes], object]:
    """A broker that a client sends these bytes to; those of an odd number come in two pieces."""
    loop, threads, settings = Loop(), ThreadPoolExecutor(1), EmbeddedSettings()
    return lambda data: loop.run(_serve(data, settings, threads, websocket=websocket))


async def _serve(data: bytes, settings: EmbeddedSettings, threads: ThreadPoolExecutor, *, websocket: bool) -> str:
    """What the broker counted."""
    now, connections = asyncio.get_running_loop().time(), set[Served]()
    router = Router(settings, now)
    inner = Served(router, connections, Listener(), threads)
    outer = WebSocketAdapter(inner, settings.max_packet_size) if websocket else None
    socket = _Socket()
    (outer or inner).connection_made(socket)
    half = len(data) // 2 if len(data) % 2 else 0
    with _strict():
        for piece in (data[:half], data[half:]):
            if piece and not socket.closing:
                outer.data_received(piece) if outer else _fill(inner, piece)
                await turns()
        inner.tick(now + LATER)
        (outer or inner).connection_lost(None)
        router.expire(now + LATER)
        await turns()
    assert not connections, "a connection that ended is kept"
    counters = router.counters
    return f"{counters.packets_in} {counters.packets_out} {dict(counters.ended)} {dict(counters.dropped)}"


def _fill(protocol: Served, data: bytes) -> None:
    """As the event loop does: at most as much at a time as there is room for."""
    view = memoryview(data)
    while view:
        room = protocol.get_buffer(len(view))
        size = min(len(room), len(view))
        room[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]


# -- a broker's bytes -------------------------------------------------------------------
class _Stream:
    """In the place of a socket: these bytes, and then the end. The event loop watches another in its place."""

    def __init__(self, data: bytes, watched: int) -> None:
        self._data, self._watched = data, watched

    def fileno(self) -> int:
        return self._watched

    def recv(self, size: int) -> bytes:
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    @property
    def unread(self) -> bool:
        return bool(self._data)

    def send(self, data: bytes) -> int:
        return len(data)

    def close(self) -> None:
        self._data = b""


def node(version: ProtocolVersion) -> Callable[[bytes], object]:
    """A node that a broker sends these bytes to: whatever they are, its link is lost with a reason."""
    loop, watched = Loop(), socket.socket().detach()  # open as long as the program runs
    return lambda data: loop.run(_connect(_Stream(data, watched), version))


async def _connect(stream: _Stream, version: ProtocolVersion) -> str:
    """Why the link was lost."""
    connection = Connection("broker", protocol=version, on_delivery=lambda link, delivery: link.acknowledge(delivery))
    client: Any = connection._client
    connection._connected.set_result(None)
    client._sock, client._state = stream, paho._ConnectionState.MQTT_CS_CONNECTED
    while client._sock and not connection._disconnected.done():
        connection._read(client)
        await turns()
    async with asyncio.timeout(PATIENCE):
        return await connection.lost()
