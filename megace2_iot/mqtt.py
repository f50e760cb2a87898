"""One MQTT connection: aiomqtt's client with refusals raised, limits read, and acknowledgement by the reader.

aiomqtt 2.5 acknowledges before the program has seen a message, hides refusals, drops the CONNACK's limits, and reuses
a client whose queue may hold a message that the broker will never take; paho reads a packet in five small pieces. This
file is the only one that reaches into them (`_client`, `_on_*`, `_disconnected`, `_misc_loop`, paho's
`_handle_publish` and others);
tests/core/test_mqtt.py checks those members on every version. A client object serves one connection and is then thrown
away.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

T = TypeVar("T")
FAILURE = 0x80  # MQTT 5: reason codes from here on are failures
UNSUPPORTED_VERSION = (0x84, 0x01)  # CONNACK of MQTT 5 and 3.1.1
NOT_WELCOME = (0x85, 0x86, 0x87, 0x8A, 0x02, 0x04, 0x05)  # bad id, credentials or authority, banned
TAKEN_OVER = 0x8E
CLOSED_EARLY = "the connection was closed before the broker answered"
READ_SIZE = 256 << 10  # bytes
SUBSCRIBING = 60.0  # s for eight filters: a cluster of NATS takes half a second for one, and 4 s to refuse one
LONGEST_PAUSE = 1.0  # s: the peer's answers to our pings come the same way
READ_PACKETS = 8  # taken before others have the event loop: fewer than any reader takes in a turn


class NotPublished(Exception):
    """A message may not have reached the broker."""


class LinkLost(NotPublished):
    """The connection ended before the operation was confirmed; it may or may not have happened."""


class Refused(NotPublished):
    """The broker, or a limit that it announced, forbids this; trying again will not help."""


class Delivery(NamedTuple):
    """One received message; `mid` is 0 where there is nothing to acknowledge (QoS 0)."""

    topic: str
    payload: bytes
    retained: bool
    mid: int
    qos: int


def _read_publish(command: int, packet: bytes, *, properties: bool) -> Delivery:
    """What follows the fixed header of a PUBLISH; raises ValueError or IndexError for anything damaged."""
    qos, end = command >> 1 & 3, 2 + int.from_bytes(packet[:2], "big")
    topic, mid = packet[2:end].decode(), 0
    if qos > 1 or not topic or len(topic) > end - 2:
        raise ValueError("a PUBLISH that was not subscribed to")
    if qos:
        mid, end = int.from_bytes(packet[end : end + 2], "big"), end + 2
    if properties:
        size, shift = packet[end] & 127, 0
        while packet[end] & 128:
            end, shift = end + 1, shift + 7
            size |= (packet[end] & 127) << shift
        end += 1 + size
    if end > len(packet):
        raise ValueError("a truncated PUBLISH")
    return Delivery(topic, packet[end:], bool(command & 1), mid, qos)


class _BufferedSocket:
    """A socket that is read in large pieces: paho asks for the first bytes of a packet one at a time."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._piece, self._at = b"", 0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # aiomqtt sets options on plain sockets only
        self.send, self.fileno = sock.send, sock.fileno

    def recv(self, size: int) -> bytes:
        at = self._at
        if at >= len(self._piece):
            self._piece, at = self._sock.recv(READ_SIZE), 0  # raises BlockingIOError where nothing is there
        self._at = at + size
        return self._piece[at : at + size]

    @property
    def unread(self) -> bool:
        return self._at < len(self._piece) or (hasattr(self._sock, "pending") and self._sock.pending() > 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Connection(aiomqtt.Client):
    """One connection to a broker; deliveries go straight to `on_delivery`, which must not block."""

    def __init__(self, *args: Any, on_delivery: Callable[[Connection, Delivery], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_delivery = on_delivery
        self._confirmations: dict[int, asyncio.Future[None]] = {}
        self.patience: float | None = None  # s for the broker's word on a message; then it is given up
        self.max_packet_size: int | None = None
        self.session_present = False
        self._reading_soon = self._paused = False
        for future in (self._connected, self._disconnected):  # their errors may come when nobody waits any more
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._client.manual_ack_set(True)
        self._client.connect_timeout = self.timeout
        self._client._handle_publish = self._handle_publish  # type: ignore[method-assign]
        create_socket: Any = self._client._create_socket
        self._client._create_socket = lambda: _BufferedSocket(create_socket())  # type: ignore[method-assign]

    # -- what the broker says ---------------------------------------------------------
    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.session_present = bool(flags.session_present)
        self.max_packet_size = getattr(properties, "MaximumPacketSize", None)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if not self._connected.done():  # aiomqtt would wait for the answer until its time is over
            self._connected.set_exception(aiomqtt.MqttError(CLOSED_EARLY))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _handle_publish(self) -> MQTTErrorCode:
        """In the place of paho's: a PUBLISH of QoS 0 or 1, whose properties nobody here reads (MQTT 3.3)."""
        command, packet = self._client._in_packet["command"], self._client._in_packet["packet"]
        try:
            delivery = _read_publish(command, bytes(packet), properties=self._client._protocol == paho.MQTTv5)
        except (ValueError, IndexError):
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        self._on_delivery(self, delivery)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        confirmation = self._confirmations.pop(mid, None)
        if confirmation is None or confirmation.done():
            return
        if reason_code.value >= FAILURE:
            confirmation.set_exception(Refused(str(reason_code)))
        else:
            confirmation.set_result(None)

    def _on_subscribe(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reason_codes: list[ReasonCode],
        properties: Properties | None = None,
    ) -> None:
        if mid in self._pending_subscribes:  # who waited may have been cancelled, and aiomqtt logs that as an error
            super()._on_subscribe(client, userdata, mid, reason_codes, properties)

    def _on_unsubscribe(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reason_codes: list[ReasonCode],
        properties: Properties | None = None,
    ) -> None:
        if mid in self._pending_unsubscribes:  # the same
            super()._on_unsubscribe(client, userdata, mid, reason_codes, properties)

    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        """In the place of aiomqtt's, which watches the socket a moment later: TLS may have refused and closed it."""
        self._loop.call_soon_threadsafe(self._begin, client, sock)

    def _begin(self, client: paho.Client, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.add_reader(sock.fileno(), self._read, client)
            self._misc_task = self._loop.create_task(self._misc_loop(), name="mqtt keepalive")

    def _read(self, client: paho.Client) -> None:
        """In the place of aiomqtt's reader: a few packets, then the others' turn, then what is left."""
        try:
            for _ in range(READ_PACKETS):
                client.loop_read()
                sock: Any = client._sock
                if sock is None or not sock.unread or self._paused:
                    return
        except Exception as error:  # whatever it is, the connection is of no use any more
            if not self._disconnected.done():
                told = isinstance(error, (aiomqtt.MqttError, OSError))  # paho 2.1: struct.error, KeyError
                self._disconnected.set_exception(error if told else aiomqtt.MqttError(f"damaged packet: {error!r}"))
            return
        self._read_soon()

    def _read_soon(self) -> None:
        """Go on with what was read from the socket already, which no event tells of."""
        if not self._reading_soon:
            self._reading_soon = True
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self._reading_soon = False
        if not self._paused:
            self._read(self._client)

    def pause_reading(self) -> None:
        """Leave what comes to the sockets' buffers, so that the broker waits; for `LONGEST_PAUSE` at most."""
        sock: Any = self._client._sock
        if not self._paused and sock is not None:
            self._paused = True
            self._loop.remove_reader(sock.fileno())
            self._loop.call_later(LONGEST_PAUSE, self.resume_reading)

    def resume_reading(self) -> None:
        sock: Any = self._client._sock
        if self._paused and sock is not None and sock.fileno() >= 0:
            self._loop.add_reader(sock.fileno(), self._read, self._client)
            self._read_soon()
        self._paused = False

    def _on_socket_register_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        """aiomqtt's own watches the socket a moment later, and by then it may be closed and its number reused."""
        self._loop.call_soon_threadsafe(self._watch_writable, client, sock)

    def _watch_writable(self, client: paho.Client, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.add_writer(sock.fileno(), self._write, client)

    def _write(self, client: paho.Client) -> None:
        try:
            client.loop_write()
        except (OSError, ValueError) as error:  # the connection broke underneath
            if not self._disconnected.done():
                self._disconnected.set_exception(error)

    # -- what we say ------------------------------------------------------------------
    async def send(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Publish, and for QoS 1 wait for the broker's word; raises `LinkLost` or `Refused`."""
        size = len(payload) + len(topic) + 16
        if self.max_packet_size is not None and size > self.max_packet_size:
            raise Refused(f"{topic}: {size} bytes, the broker takes {self.max_packet_size}")
        if self._disconnected.done():
            raise LinkLost("not connected")
        info = self._client.publish(topic, payload, qos, retain)
        if info.rc != paho.MQTT_ERR_SUCCESS and info.rc != paho.MQTT_ERR_QUEUE_SIZE:
            raise LinkLost(paho.error_string(info.rc))
        if qos == 0 or info.is_published():
            return
        confirmation = asyncio.get_running_loop().create_future()
        self._confirmations[info.mid] = confirmation
        try:
            async with asyncio.timeout(self.patience):
                await confirmation
        except Refused as error:
            raise Refused(f"{topic}: {error}") from None
        except TimeoutError:
            reason = f"{topic} was not confirmed within {self.patience:g} s"
            self.give_up(reason)
            raise LinkLost(reason) from None
        finally:
            self._confirmations.pop(info.mid, None)

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:
        """In the place of aiomqtt's: in 3.11 `asyncio.wait_for` loses a cancellation that comes with the answer."""
        limit = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(None if limit == math.inf else limit):
                return await fut
        except TimeoutError:
            raise aiomqtt.MqttError("Operation timed out") from None

    def acknowledge(self, delivery: Delivery) -> None:
        if delivery.mid and not self._disconnected.done():
            self._client.ack(delivery.mid, delivery.qos)

    async def listen(self, filters: list[tuple[str, int]]) -> None:
        """Subscribe in groups of eight (AWS's limit); raises `Refused` where the broker denies a filter."""
        for first in range(0, len(filters), 8):
            group = filters[first : first + 8]
            codes = await self.subscribe(group, timeout=SUBSCRIBING)
            for (topic_filter, _), code in zip(group, codes, strict=True):
                reason: Any = getattr(code, "value", code)
                if reason >= FAILURE:
                    raise Refused(f"subscription to {topic_filter}: {code}")

    async def lost(self) -> str:
        """Wait until the connection ends; returns why. Whoever waits for a confirmation gets `LinkLost`."""
        try:
            await asyncio.shield(self._disconnected)
            reason = "closed"
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            reason = str(error)
        self.fail_pending(reason)
        return reason

    def give_up(self, reason: str) -> None:
        """End it as if the link had: it is of no use."""
        if not self._disconnected.done():
            self._disconnected.set_exception(aiomqtt.MqttError(reason))

    def fail_pending(self, reason: str) -> None:
        waiting: list[asyncio.Future[Any]] = [*self._confirmations.values(), *self._pending_subscribes.values()]
        for confirmation in waiting:
            if not confirmation.done():
                confirmation.set_exception(LinkLost(reason))

    async def leave(self, *, gracefully: bool) -> None:
        """Close the connection; without `gracefully` the broker publishes the will."""
        if gracefully and not self._disconnected.done():
            try:
                async with asyncio.timeout(2):  # a half-open link never confirms a DISCONNECT
                    await self.__aexit__(None, None, None)
            except (aiomqtt.MqttError, TimeoutError):
                pass
        self._client._sock_close()  # also ends aiomqtt's reader and its keepalive task
        self.fail_pending("closed")

    @property
    def was_taken_over(self) -> bool:
        error = self._disconnected.exception() if self._disconnected.done() else None
        code = getattr(error, "rc", None)
        return getattr(code, "value", code) == TAKEN_OVER
