"""Load from another process: `python -m benchmarks.load` speaks just enough MQTT 3.1.1 to keep a broker busy.

Arguments: port, mode, packets file, core (-1: any). The file holds, for each packet, the lengths of its topic and its
payload, and both. `flood` publishes all of them at QoS 1; `closed` keeps 32 of each device unanswered, as devices do.
It prints `ready`, waits for a line, and publishes.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from broker.codec import encode
from broker.framing import PacketReader
from broker.packets import Connect, Puback, Publish, Subscribe

LENGTHS = struct.Struct("<HI")
WINDOW = 64  # packets that the broker has not acknowledged
UNANSWERED = 32  # packets of one device


def write_packets(path: Path, packets: Iterable[tuple[str, bytes]]) -> None:
    with path.open("wb") as file:
        for topic, payload in packets:
            name = topic.encode()
            file.write(LENGTHS.pack(len(name), len(payload)) + name + payload)


def read_packets(path: Path) -> Iterator[tuple[str, bytes]]:
    data, at = path.read_bytes(), 0
    while at < len(data):
        name, size = LENGTHS.unpack_from(data, at)
        at += LENGTHS.size
        yield data[at : at + name].decode(), data[at + name : at + name + size]
        at += name + size


class Link:
    """One connection, blocking, counting what is not acknowledged."""

    def __init__(self, port: int, name: str) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader, self._ids, self.unacknowledged = PacketReader(1 << 24), 0, 0
        self._sock.sendall(encode(Connect(name)))
        self.take()

    def fileno(self) -> int:
        return self._sock.fileno()

    def subscribe(self, topic_filter: str) -> None:
        self._sock.sendall(encode(Subscribe(1, ((topic_filter, 1),))))
        self.take()

    def publish(self, topic: str, payload: bytes) -> None:
        self._ids = self._ids % 65_535 + 1
        self.unacknowledged += 1
        self._sock.sendall(encode(Publish(topic, payload, 1, False, packet_id=self._ids)))

    def take(self) -> list[Publish]:
        """Wait for something; returns the messages among it, acknowledged."""
        messages = []
        for packet in self._reader.feed(self._sock.recv(1 << 18)):
            if isinstance(packet, Puback):
                self.unacknowledged -= 1
            elif isinstance(packet, Publish):
                messages.append(packet)
                self._sock.sendall(encode(Puback(packet.packet_id)))
        return messages


def flood(link: Link, packets: Iterable[tuple[str, bytes]]) -> None:
    for topic, payload in packets:
        link.publish(topic, payload)
        while link.unacknowledged >= WINDOW:
            link.take()
    while link.unacknowledged:
        link.take()


def closed(link: Link, packets: Iterable[tuple[str, bytes]]) -> None:
    """Every answer to a device lets its next packet go, until standard input closes."""
    waiting: dict[str, deque[tuple[str, bytes]]] = {}
    for topic, payload in packets:
        waiting.setdefault(topic.split("/")[-4], deque()).append((topic, payload))
    link.subscribe("megace2/v1/lab/device/+/dn/prediction/+")
    for queue in waiting.values():
        for _ in range(UNANSWERED):
            link.publish(*queue.popleft())
    while sys.stdin not in select.select([sys.stdin, link], [], [])[0]:
        for message in link.take():
            if queue := waiting[message.topic.split("/")[-4]]:
                link.publish(*queue.popleft())


def main() -> None:
    port, mode, path, core = sys.argv[1:]
    if int(core) >= 0:
        os.sched_setaffinity(0, {int(core)})
    packets, link = list(read_packets(Path(path))), Link(int(port), f"load-{mode}-{os.getpid()}")
    print("ready", flush=True)
    sys.stdin.readline()
    (flood if mode == "flood" else closed)(link, packets)
    print("done", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
