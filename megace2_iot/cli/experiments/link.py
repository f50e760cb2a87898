"""A TCP link with a rate, a latency, jitter and faults, between a client and a server on the loopback.

async with ShapedLink(broker.port, rate_bit_s=20e6, latency_s=0.01) as link:
    connect to link.port, then link.cut(), link.cut_after(bytes), link.half_open(), link.freeze(), link.thaw()

Each direction and connection has its own token bucket, or, where the link is `shared`, each direction one for all
connections, first come first served: the uplink of a house or a cell. What does not fit into the rate stays where it
was sent from: the link stops reading, and its kernel buffers are small. Bytes are those of TCP's payload.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass
from types import TracebackType

CHUNK_BYTES = 8 * 1024  # forwarded at once
KERNEL_BYTES = 16 * 1024  # asked of SO_RCVBUF and SO_SNDBUF; Linux doubles it
CATCH_UP_S = 0.02  # how far a late wake-up may be made good, so that the rate stays true on a busy machine
DELAY_LINE = 256  # chunks on their way in one direction: latency without a rate is bounded too
BURST_S = 0.005  # bytes that follow within this belong to the same burst
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Bucket:
    """Bytes at a rate, first come first served."""

    free_at: float = 0.0  # s of the loop's clock at which the wire is free again

    async def take(self, size: int, rate_bit_s: float) -> None:
        """Wait until `size` bytes have left. A wire that was idle starts now: it has saved nothing up."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        begin = self.free_at if self.free_at > now - CATCH_UP_S else now
        self.free_at = begin + size * 8 / rate_bit_s
        await asyncio.sleep(max(0.0, self.free_at - now))


@dataclass(slots=True, eq=False)
class Direction:
    """One way through the link: its rate, what it has delivered, and the bucket where one is shared."""

    rate_bit_s: float | None
    bytes: int = 0
    bucket: Bucket | None = None


class ShapedLink:
    """Listens on `port` and forwards to `target_port`; `bytes_up` and `bytes_down` count what was delivered."""

    def __init__(
        self,
        target_port: int,
        rate_bit_s: float | None = None,
        latency_s: float = 0.0,
        *,
        jitter_s: float = 0.0,
        cut_rate: float = 0.0,
        target_host: str = "127.0.0.1",
        shared: bool = False,
        seed: int = 0,
    ) -> None:
        """`jitter_s` is the most that is added to a piece's latency, which overtakes nothing: it is TCP. With a chance
        of `cut_rate` a burst of bytes, about a message, resets its connection instead of arriving.
        """
        self.latency_s = latency_s  # one way; may be changed at any time, as the rates and the two below may
        self.jitter_s, self.cut_rate = jitter_s, cut_rate
        self.cuts = 0  # connections reset, by whatever fault
        self.port = 0
        self.connections = 0  # ever accepted
        self.up = Direction(rate_bit_s, bucket=Bucket() if shared else None)  # towards the target
        self.down = Direction(rate_bit_s, bucket=Bucket() if shared else None)
        self._random = random.Random(seed)
        self._cut_at: int | None = None  # bytes delivered, of both directions, at which all is reset
        self._target = (target_host, target_port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()  # of both ends
        self._far: set[asyncio.StreamWriter] = set()  # of the target's end
        self._peers: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}  # the other end of a connection
        self._abandoned: set[asyncio.StreamWriter] = set()  # clients whose far end is gone, and who do not know
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def bytes_up(self) -> int:
        return self.up.bytes

    @property
    def bytes_down(self) -> int:
        return self.down.bytes

    async def __aenter__(self) -> ShapedLink:
        listener = _small(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=CHUNK_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every connection, as a router that lost its tables does."""
        self._cut_at = None
        for writer in self._writers:
            self._reset(writer)

    def cut_after(self, size: int) -> None:
        """Reset every connection when `size` more bytes were delivered, of both directions together."""
        self._cut_at = self.up.bytes + self.down.bytes + size

    def half_open(self) -> None:
        """Close every connection at the target's end only: clients hear nothing more, and are not told."""
        self._abandoned |= self._writers - self._far
        for writer in self._far:
            self._reset(writer)

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        if not writer.is_closing():
            self.cuts += writer in self._far
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()

    def freeze(self) -> None:
        """Forward nothing, in either direction, and close nothing: both ends see silence."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        far_writer = None
        try:
            near = _small(socket.socket())
            near.setblocking(False)
            await asyncio.get_running_loop().sock_connect(near, self._target)
            far_reader, far_writer = await asyncio.open_connection(sock=near, limit=CHUNK_BYTES)
            self._writers.add(far_writer)
            self._far.add(far_writer)
            self._peers |= {writer: far_writer, far_writer: writer}
            await self._both_ways(reader, writer, far_reader, far_writer)
            if writer in self._abandoned:
                while await reader.read(CHUNK_BYTES):  # until the client gives up
                    pass
        except (OSError, asyncio.CancelledError):
            pass  # a reset, or the end of this link: both ends are closed below
        finally:
            self._tasks.discard(task)
            for end in (writer, far_writer):
                await self._close(end)

    async def _both_ways(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        """Forward until either end closes."""
        ways = [
            asyncio.create_task(self._one_way(reader, far_writer, self.up), name="link up"),
            asyncio.create_task(self._one_way(far_reader, writer, self.down), name="link down"),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(DELAY_LINE)
        delivery = asyncio.create_task(self._deliver(line, writer, direction), name="link delivery")
        try:
            await self._pace(reader, line, direction)
            await line.put((0.0, b""))
            await delivery
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)

    async def _pace(
        self, reader: asyncio.StreamReader, line: asyncio.Queue[tuple[float, bytes]], direction: Direction
    ) -> None:
        """Take bytes off the wire at the direction's rate."""
        loop = asyncio.get_running_loop()
        bucket = direction.bucket or Bucket()
        while data := await reader.read(CHUNK_BYTES):
            await self._flowing.wait()
            if direction.rate_bit_s is not None:
                await bucket.take(len(data), direction.rate_bit_s)
            delay = self.latency_s + self._random.uniform(0.0, self.jitter_s)
            await line.put((loop.time() + delay, data))

    async def _deliver(
        self, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        """Hand over what has been on its way for long enough; empty data is the end."""
        writer.transport.set_write_buffer_limits(0)
        loop, before = asyncio.get_running_loop(), 0.0
        while True:
            due, data = await line.get()
            begins, before = due - before > BURST_S, due
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await self._flowing.wait()
            if not data:
                return
            if begins and self._random.random() < self.cut_rate:
                self._reset(writer)
                self._reset(self._peers[writer])
                return
            writer.write(data)
            await writer.drain()
            direction.bytes += len(data)
            if self._cut_at is not None and self.up.bytes + self.down.bytes >= self._cut_at:
                self.cut()

    async def _close(self, writer: asyncio.StreamWriter | None) -> None:
        if writer is not None:
            for kept in (self._writers, self._far, self._abandoned):
                kept.discard(writer)
            self._peers.pop(writer, None)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _small(sock: socket.socket) -> socket.socket:
    """With kernel buffers too small to hide a queue."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
