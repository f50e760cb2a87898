"""An MQTT client for tests that acknowledges, answers and closes only when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from broker.codec import encode
from broker.framing import PacketReader
from broker.packets import (
    V5,
    Connack,
    Connect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Request,
    Suback,
    Subscribe,
)
from broker.properties import Properties

RunBroker = Callable[..., AbstractAsyncContextManager[Any]]  # the fixture `run_broker`
P = TypeVar("P", bound=Packet)
PATIENCE = 8.0  # seconds for anything that must come


class Wire:
    """`async with Wire(port, "id", keepalive=2) as client`: further keywords are those of CONNECT.

    It speaks MQTT 3.1.1, and 5 with `level=5`; `tls` is a client's context.
    `kernel_bytes` keeps the kernel from taking much that is not read.
    """

    def __init__(
        self,
        port: int,
        client_id: str = "",
        kernel_bytes: int | None = None,
        tls: ssl.SSLContext | None = None,
        **fields: Any,
    ) -> None:
        self.port = port
        self._tls = {"ssl": tls, "server_hostname": "localhost"} if tls else {}
        self._kernel_bytes = kernel_bytes
        self.connack = Connack(0xFF)
        self._connect = Connect(client_id, **fields)
        self._version = self._connect.level
        self._packets = PacketReader(2**28, self._version)
        self._ready: list[Packet] = []
        self._last_id = 0

    async def __aenter__(self) -> Wire:
        sock = socket.socket()
        sock.setblocking(False)
        if self._kernel_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._kernel_bytes)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        self._reader, self._writer = await asyncio.open_connection(sock=sock, **self._tls)
        try:
            await self.send(self._connect)
            self.connack = await self.expect(Connack)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        self.vanish()
        with contextlib.suppress(OSError):  # the broker was first
            await self._writer.wait_closed()

    def vanish(self) -> None:
        """Close the socket without DISCONNECT."""
        self._writer.transport.abort()

    def stop_reading(self) -> None:
        """Leave what the broker sends in the kernel's buffer."""
        self._writer.transport.pause_reading()

    async def send(self, *packets: Packet) -> None:
        await self.send_bytes(b"".join(encode(packet, self._version) for packet in packets))

    async def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def next(self, timeout: float = PATIENCE) -> Packet:
        """The next packet. Raises TimeoutError, or ConnectionError at the end of the connection."""
        async with asyncio.timeout(timeout):
            while not self._ready:
                data = await self._reader.read(65536)
                if not data:
                    raise ConnectionResetError("the broker closed the connection")
                self._ready += self._packets.feed(data)
        return self._ready.pop(0)

    async def expect(self, kind: type[P], timeout: float = PATIENCE) -> P:
        packet = await self.next(timeout)
        assert isinstance(packet, kind), packet
        return packet

    async def nothing_for(self, seconds: float) -> bool:
        try:
            await self.next(seconds)
        except TimeoutError:
            return True
        return False

    async def is_closed(self, timeout: float = PATIENCE) -> bool:
        """Whether the broker closes the connection in time; what it sends before is thrown away."""
        try:
            while True:
                await self.next(timeout)
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def packet_id(self) -> int:
        self._last_id += 1
        return self._last_id

    async def subscribe(self, *requests: Request | tuple[str, int], **properties: Any) -> tuple[int, ...]:
        await self.send(Subscribe(self.packet_id(), requests, Properties(**properties)))
        return (await self.expect(Suback)).codes

    async def publish(
        self, topic: str, payload: bytes = b"", qos: int = 1, retain: bool = False, **properties: Any
    ) -> int:
        """Publish, and wait until it is acknowledged; the reason code."""
        packet_id = self.packet_id() if qos else 0
        await self.send(Publish(topic, payload, qos, retain, False, packet_id, Properties(**properties)))
        if qos == 0:
            return 0
        answer: Puback | Pubrec = await self.expect(Puback if qos == 1 else Pubrec)
        assert answer.packet_id == packet_id
        if qos == 2 and answer.reason < 0x80:
            await self.send(Pubrel(packet_id))
            assert await self.expect(Pubcomp) == Pubcomp(packet_id)
        return answer.reason

    async def receive(self, timeout: float = PATIENCE) -> Publish:
        """The next message, acknowledged."""
        message = await self.expect(Publish, timeout)
        if message.qos == 1:
            await self.send(Puback(message.packet_id))
        elif message.qos == 2:
            await self.send(Pubrec(message.packet_id))
            meanwhile = []
            while (packet := await self.next(timeout)) != Pubrel(message.packet_id):
                meanwhile.append(packet)
            self._ready[:0] = meanwhile
            await self.send(Pubcomp(message.packet_id))
        return message

    async def payloads(self, count: int) -> list[bytes]:
        return [bytes((await self.receive()).payload) for _ in range(count)]


def wire5(port: int, name: str = "", **fields: Any) -> Wire:
    """A client of MQTT 5; keywords are those of CONNECT, or its properties."""
    of_connect = ("will", "keepalive", "clean_session", "username", "password", "tls")
    known = {key: fields.pop(key) for key in of_connect if key in fields}
    return Wire(port, name, level=V5, properties=Properties(**fields), **known)


async def answer_of(port: int, data: bytes, patience: float = PATIENCE) -> bytes:
    """All that a broker answers to these bytes before it closes the connection."""
    answer = b""
    async with asyncio.timeout(patience):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        with contextlib.suppress(ConnectionError):  # it need not read all that came
            while more := await reader.read(65536):
                answer += more
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return answer


async def refusal(port: int, connect: Connect) -> Connack:
    """The CONNACK, after which the connection is closed."""
    (connack,) = PacketReader(1000, V5).feed(await answer_of(port, encode(connect)))
    assert isinstance(connack, Connack)
    return connack
