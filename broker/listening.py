"""The sockets that the embedded broker listens on, and new certificates for them while they stay open."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from broker.connection import Connection
from broker.settings import BrokerError, EmbeddedSettings, Listener, TlsSettings, port_in_use
from broker.tls import make_context, revoked_serials, serial_of

BACKLOG = 512
FAREWELL = 5.0  # seconds that a client has to end TLS as it should


class Listening:
    """One server for each listener. `connect` makes the protocol of a new connection."""

    def __init__(self, settings: EmbeddedSettings, connect: Callable[[Listener], Connection]) -> None:
        self._listeners = settings.all_listeners
        self._max_packet_size = settings.max_packet_size
        self._connect_deadline = settings.connect_deadline
        self._connect = connect
        self.addresses: list[tuple[str, int]] = []  # host and port of each listener
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._revoked: dict[TlsSettings, frozenset[int]] = {}

    async def open(self) -> None:
        """Raises BrokerError, and then nothing is left open once `close` was called."""
        contexts = self._read()
        for listener in self._listeners:
            self._sockets.append(_bind(listener))
            self.addresses.append((listener.host, self._sockets[-1].getsockname()[1]))
        await self._serve(contexts)

    async def reload(self, also: Callable[[], None]) -> None:
        """Serve new connections with what the files say now. Raises BrokerError where they or `also` are wrong."""
        contexts = self._read()
        also()
        old, self._servers = self._servers, []
        await self._serve(contexts)
        await _retire(old)

    def _read(self) -> list[ssl.SSLContext | None]:
        tls = [listener.tls for listener in self._listeners]
        contexts = [make_context(one) if one else None for one in tls]
        self._revoked = {one: revoked_serials(one.crl) for one in tls if one and one.crl}
        return contexts

    async def _serve(self, contexts: Sequence[ssl.SSLContext | None]) -> None:
        """Each server has its own copy of the socket, so that a newer one can take over without a gap."""
        for listener, listening, context in zip(self._listeners, self._sockets, contexts, strict=True):
            self._servers.append(await self._server(listener, listening.dup(), context))

    async def _server(self, listener: Listener, copy: socket.socket, context: ssl.SSLContext | None) -> asyncio.Server:
        def plain() -> Connection:
            return self._connect(listener)

        factory = _over_websocket(plain, self._max_packet_size) if listener.websocket else plain
        secure = context is not None
        return await asyncio.get_running_loop().create_server(
            factory,
            sock=copy,
            ssl=context,
            backlog=BACKLOG,
            ssl_handshake_timeout=self._connect_deadline if secure else None,  # until then it is nobody's connection
            ssl_shutdown_timeout=FAREWELL if secure else None,
        )

    def has_revoked(self, tls: TlsSettings, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a certificate that was good when its client connected is in the CRL now."""
        return serial_of(certificate) in self._revoked.get(tls, ())

    @property
    def urls(self) -> list[str]:
        found = []
        for listener, (host, port) in zip(self._listeners, self.addresses, strict=True):
            scheme = ("ws" if listener.websocket else "mqtt") + ("s" if listener.tls else "")
            found.append(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        return found

    def close(self) -> None:
        """Accept no more; may be called again."""
        for server in self._servers:
            server.close()
        for listening in self._sockets:
            listening.close()

    async def wait_closed(self) -> None:
        for server in self._servers:
            await server.wait_closed()


async def _retire(servers: Sequence[asyncio.Server]) -> None:
    """Close servers whose sockets others serve now. One that closes with a connection just accepted would leave it
    hanging, so each stops accepting first, and what it accepted in this turn of the loop gets its transport.
    """
    loop = asyncio.get_running_loop()
    for server in servers:
        for listening in server.sockets:
            loop.remove_reader(listening.fileno())
    for _ in range(2):
        await asyncio.sleep(0)
    for server in servers:
        server.close()


def _bind(listener: Listener) -> socket.socket:
    try:
        found = socket.getaddrinfo(listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise port_in_use(listener.host, listener.port, error) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise port_in_use(listener.host, listener.port, error) from error
    return listening


def _over_websocket(connect: Callable[[], Connection], max_packet_size: int) -> Callable[[], asyncio.BaseProtocol]:
    try:
        from broker.websocket import WebSocketAdapter
    except ImportError as error:
        raise BrokerError("a WebSocket listener needs the extra `web`: pip install 'megace2-iot[web]'") from error
    return lambda: WebSocketAdapter(connect(), max_packet_size)
