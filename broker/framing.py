"""Cuts a stream of bytes into MQTT packets, with every size bounded before it is stored; performs no I/O.

Small packets are read into one fixed buffer, many at a time. A packet that does not fit gets a buffer of its own,
into which the socket then writes directly: its payload is never copied again, however many subscribers it has.
"""

from __future__ import annotations

from broker.codec import FIRST_BYTES, decode
from broker.packets import V311, Connect, Packet, PacketTooLargeError, ProtocolError

BUFFER_BYTES = 64 * 1024


class PacketReader:
    """Fill `buffer()`, say how much with `advance(n)`, then call `next()` until it returns None."""

    def __init__(self, max_packet_size: int, version: int = V311) -> None:
        self.version = version  # what the packets are decoded as; a CONNECT sets it
        self.max_packet_size = max_packet_size  # bytes, header included; may be raised between two packets
        self._shared = memoryview(bytearray(BUFFER_BYTES))
        self._start = 0
        self._end = 0
        self._own: memoryview | None = None  # body of the large packet that is being read
        self._own_first = 0
        self._own_filled = 0

    def buffer(self) -> memoryview:
        """Where the next bytes of the stream go; never empty once `next()` has returned None."""
        if self._own is not None:
            return self._own[self._own_filled :]
        return self._shared[self._end :]

    def advance(self, size: int) -> None:
        """`size` bytes were written to the start of `buffer()`."""
        if self._own is not None:
            self._own_filled += size
        else:
            self._end += size

    def next(self) -> Packet | None:
        """The next whole packet, or None for want of bytes. Raises ProtocolError."""
        if self._own is not None:
            if self._own_filled < len(self._own):
                return None
            body, self._own = self._own, None
            return self._decoded(decode(self._own_first, body, self.version, borrowed=False))
        header = self._header()
        if header is None:
            self._make_room()
            return None
        first, start, length = header
        end = start + length
        if end <= self._end:
            self._start = end
            return self._decoded(decode(first, self._shared[start:end], self.version))
        if end - self._start <= BUFFER_BYTES:
            self._make_room()
        else:
            self._begin_own(first, start, length)
        return None

    def _decoded(self, packet: Packet) -> Packet:
        if isinstance(packet, Connect):
            self.version = packet.level
        return packet

    def feed(self, data: bytes) -> list[Packet]:
        """All packets that `data` completes, for a caller that has bytes and no use for `buffer()`."""
        packets, view = [], memoryview(data)
        while view:
            room = self.buffer()
            size = min(len(room), len(view))
            room[:size] = view[:size]
            view = view[size:]
            self.advance(size)
            while (packet := self.next()) is not None:
                packets.append(packet)
        return packets

    def _header(self) -> tuple[int, int, int] | None:
        """First byte, where the body starts and its length; None while the header is not whole."""
        shared, at, shift, length = self._shared, self._start + 1, 0, 0
        if at <= self._end and shared[self._start] not in FIRST_BYTES:
            # Known by one byte: a browser or a TLS client is told at once, not when it has sent a packet's worth.
            raise ProtocolError(f"no MQTT packet begins with byte {shared[self._start]:#04x}")
        while at < self._end:
            byte = shared[at]
            at += 1
            length |= (byte & 127) << shift
            if byte < 128:
                if at - self._start + length > self.max_packet_size:
                    raise PacketTooLargeError(f"a packet of {at - self._start + length} bytes")
                return shared[self._start], at, length
            shift += 7
            if shift == 28:
                raise ProtocolError("a remaining length of more than four bytes")
        return None

    def _make_room(self) -> None:
        if self._start:
            rest = self._end - self._start
            self._shared[:rest] = bytes(self._shared[self._start : self._end])
            self._start, self._end = 0, rest

    def _begin_own(self, first: int, start: int, length: int) -> None:
        self._own = memoryview(bytearray(length))
        self._own_first, self._own_filled = first, self._end - start
        self._own[: self._own_filled] = self._shared[start : self._end]
        self._start = self._end = 0
