"""MQTT over WebSocket: an MQTT connection below it, the framing by `websockets`, which does no I/O (MQTT 5, 6)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from broker.connection import Connection
from broker.settings import KIB

SUBPROTOCOLS = [Subprotocol("mqtt"), Subprotocol("mqttv3.1")]  # the second is what old clients of 3.1.1 ask for
FRAME_OVERHEAD = 64 * KIB  # several small packets may share a frame with a large one

_log = logging.getLogger("megace2.broker.websocket")
_log.setLevel(logging.WARNING)  # the library tells of every handshake


class WebSocketAdapter(asyncio.Protocol):
    """The protocol of the socket. `inner` sees the bytes within the frames, through a transport of its own."""

    def __init__(self, inner: Connection, max_packet_size: int) -> None:
        self._inner = inner
        limits = (None, max_packet_size + FRAME_OVERHEAD)
        self._frames = ServerProtocol(subprotocols=SUBPROTOCOLS, max_size=limits, logger=_log)
        self._unread = b""  # came while the inner protocol did not read
        self._reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(_Within(self, self._transport))

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def data_received(self, data: bytes) -> None:
        while data and self._frames.state is CONNECTING and not self._frames.eof_sent:
            line, end, data = data.partition(b"\n")  # what follows a request is read once that is answered
            self._take(line + end)
        self._take(data)
        self.flush()

    def _take(self, data: bytes) -> None:
        self._frames.receive_data(data)
        for event in self._frames.events_received():
            if isinstance(event, Request):
                self._frames.send_response(self._frames.accept(event))
            elif isinstance(event, Frame):
                self._receive(event)

    def eof_received(self) -> None:
        self._frames.receive_eof()
        self._inner.eof_received()
        self.flush()

    def _receive(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            self._frames.fail(CloseCode.UNSUPPORTED_DATA, "MQTT is binary")
        elif frame.opcode in (Opcode.BINARY, Opcode.CONT):
            self._unread += frame.data
            self._pass_on()
        elif frame.opcode is Opcode.CLOSE:
            self._inner.eof_received()

    def _pass_on(self) -> None:
        view = memoryview(self._unread)
        while view and self._reading:
            room = self._inner.get_buffer(len(view))
            size = min(len(room), len(view))
            room[:size] = view[:size]
            view = view[size:]
            self._inner.buffer_updated(size)
        self._unread = bytes(view)

    # --- what the inner protocol does -------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        if self._frames.state is OPEN:
            self._frames.send_binary(data)
            self.flush()

    def hang_up(self) -> None:
        """Say goodbye as WebSocket does, or close what never became one."""
        if self._frames.state is OPEN:
            self._frames.send_close(CloseCode.NORMAL_CLOSURE)
            self.flush()
        elif self._frames.state is CONNECTING:
            self._transport.close()

    def set_reading(self, reading: bool) -> None:
        self._reading = reading
        if reading:
            self._pass_on()
        if self._transport.is_closing():
            return
        if self._reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def flush(self) -> None:
        """Write what the framing has to say; it ends with an empty part where the socket is to be closed."""
        for part in self._frames.data_to_send():
            if part:
                self._transport.write(part)
            else:
                self._transport.close()


class _Within(asyncio.Transport):
    """The transport that the inner protocol sees."""

    def __init__(self, adapter: WebSocketAdapter, outer: asyncio.Transport) -> None:
        super().__init__()
        self._adapter = adapter
        self._outer = outer
        self._closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._outer.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._adapter.send(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self._outer.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._outer.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        self._adapter.set_reading(False)

    def resume_reading(self) -> None:
        self._adapter.set_reading(True)

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self._closing or self._outer.is_closing()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._adapter.hang_up()

    def abort(self) -> None:
        self._closing = True
        self._outer.abort()
