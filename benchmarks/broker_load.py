"""`python -m benchmarks.broker_load PORT PUBLISHERS SIZE WINDOW SECONDS`: raw sockets that keep a broker busy at QoS 1.

Every publisher keeps WINDOW messages unacknowledged, one subscriber with a lasting session acknowledges what arrives;
nothing is parsed that need not be, because this process shares the machine with the broker. Prints the messages that
the subscriber got in a second. With `serve FILE` in place of the numbers it is an embedded broker instead, which prints
its port and keeps its sessions in FILE (`-`: in memory).
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import ssl
import sys
import time
from pathlib import Path

from broker.codec import encode
from broker.packets import Connect, Publish, Subscribe
from broker.server import embedded_broker
from broker.settings import EmbeddedSettings

TOPIC = "benchmark/messages"
WARM_UP = 0.5  # s
PIECE = 1 << 20


def connect(port: int, name: str, *, clean: bool = True, tls: ssl.SSLContext | None = None) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is not None:
        link = tls.wrap_socket(link, server_hostname="localhost")
    link.sendall(encode(Connect(name, clean)))
    assert link.recv(4) == b"\x20\x02\x00\x00", "no new session"
    return link


class Publisher:
    """Sends its window, and one more for each PUBACK."""

    def __init__(self, port: int, number: int, size: int, window: int) -> None:
        self.link = connect(port, f"publisher-{number}")
        self._packets = [encode(Publish(TOPIC, bytes(size), 1, packet_id=at + 1)) for at in range(window)]
        self._next = 0
        self._odd = 0  # bytes of a PUBACK that came in two pieces
        self._unsent = memoryview(b"".join(self._packets))
        self.link.setblocking(False)

    @property
    def events(self) -> int:
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)

    def on_read(self) -> None:
        acks, self._odd = divmod(self._odd + len(self.link.recv(4096)), 4)
        fresh = [self._packets[(self._next + at) % len(self._packets)] for at in range(acks)]
        self._next += acks
        self._unsent = memoryview(b"".join((self._unsent, *fresh)))
        self.on_write()

    def on_write(self) -> None:
        if self._unsent:
            try:
                self._unsent = self._unsent[self.link.send(self._unsent) :]
            except BlockingIOError:
                return


class Subscriber:
    """All messages have one size, so their packet ids are found by counting bytes."""

    events = selectors.EVENT_READ

    def __init__(self, port: int, size: int, tls: ssl.SSLContext | None = None) -> None:
        self.link = connect(port, "subscriber", clean=False, tls=tls)
        self.link.sendall(encode(Subscribe(1, ((TOPIC, 1),))))
        assert self.link.recv(5) == b"\x90\x03\x00\x01\x01"
        packet = encode(Publish(TOPIC, bytes(size), 1, packet_id=1))
        self._packet, self._id_at = len(packet), len(packet) - size - 2
        self._position = 0  # in the packet that is being read
        self._id = b""
        self.messages = 0
        self._buffer = memoryview(bytearray(PIECE))

    def on_read(self) -> None:
        data = self._buffer[: self.link.recv_into(self._buffer)]
        acks = bytearray()
        start = -self._position  # of the packet that is being read, in `data`
        while start < len(data):
            id_start = start + self._id_at
            self._id += bytes(data[max(0, id_start) : max(0, id_start + 2)])
            if start + self._packet > len(data):
                break
            acks += b"\x40\x02" + self._id
            self._id = b""
            self.messages += 1
            start += self._packet
        self._position = len(data) - start
        if acks:
            self.link.sendall(acks)

    def on_write(self) -> None:
        """It writes at once."""


def rate(port: int, publishers: int, size: int, window: int, seconds: float) -> float:
    """Messages a second at the subscriber, once the queues are full."""
    subscriber = Subscriber(port, size)
    with selectors.DefaultSelector() as selector:
        clients = [subscriber, *(Publisher(port, number, size, window) for number in range(publishers))]
        for client in clients:
            selector.register(client.link, client.events, client)
        run_until(selector, time.perf_counter() + WARM_UP)
        began, before = time.perf_counter(), subscriber.messages
        run_until(selector, began + seconds)
        measured = (subscriber.messages - before) / (time.perf_counter() - began)
    for client in clients:
        client.link.close()
    connect(port, "subscriber").close()  # and its session is gone
    return measured


def run_until(selector: selectors.BaseSelector, end: float) -> None:
    while time.perf_counter() < end:
        for key, events in selector.select(0.1):
            client = key.data
            if events & selectors.EVENT_READ:
                client.on_read()
            if events & selectors.EVENT_WRITE:
                client.on_write()
            if client.events != key.events:
                selector.modify(client.link, client.events, client)


async def serve(file: str) -> None:
    async with embedded_broker(EmbeddedSettings(persistence=None if file == "-" else Path(file))) as broker:
        print(broker.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    if sys.argv[1] == "serve":
        asyncio.run(serve(sys.argv[2]))
    else:
        *numbers, seconds = sys.argv[1:]
        print(rate(*map(int, numbers), float(seconds)))


if __name__ == "__main__":
    main()
