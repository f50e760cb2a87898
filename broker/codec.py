"""The bytes of MQTT 3.1.1 packets: encode and decode, without I/O.

Only `decode` meets bytes of a stranger, and all that it can raise is `ProtocolError`. A CONNECT of another protocol
level is decoded as far as its level, because what follows differs between levels and the answer (return code 1) needs
no more.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from broker.packets import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PROTOCOL_LEVEL,
    PUBACK,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    ProtocolError,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)

MAX_REMAINING_LENGTH = 268_435_455
FIRST_BYTES = frozenset(  # a packet's type and the flags that it may have; QoS 3 is nobody's
    {kind << 4 for kind in (CONNECT, CONNACK, PUBACK, SUBACK, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT)}
    | {kind << 4 | 2 for kind in (SUBSCRIBE, UNSUBSCRIBE)}
    | {PUBLISH << 4 | flags for flags in range(16) if flags & 6 != 6}
)

_U16 = struct.Struct(">H")


def encode_length(length: int) -> bytes:
    """The remaining length, 1 to 4 bytes, least significant seven bits first."""
    if length < 128:
        return bytes((length,))
    if length > MAX_REMAINING_LENGTH:
        raise ValueError(f"{length} bytes do not fit into an MQTT packet")
    out = bytearray()
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out)


def encode_field(data: str | bytes) -> bytes:
    """A string or binary field: two bytes of length, then the bytes."""
    raw = data.encode() if isinstance(data, str) else data
    if len(raw) > 0xFFFF:
        raise ValueError(f"a field of {len(raw)} bytes is over MQTT's 65,535")
    return _U16.pack(len(raw)) + raw


def publish_header(topic_field: bytes, payload_size: int, qos: int, retain: bool, dup: bool, packet_id: int) -> bytes:
    """All of a PUBLISH before its payload, so that one payload serves every subscriber."""
    first = PUBLISH << 4 | dup << 3 | qos << 1 | retain
    if qos:
        length = encode_length(len(topic_field) + 2 + payload_size)
        return b"%c%b%b%b" % (first, length, topic_field, _U16.pack(packet_id))
    return b"%c%b%b" % (first, encode_length(len(topic_field) + payload_size), topic_field)


def encode_puback(packet_id: int) -> bytes:
    return b"\x40\x02" + _U16.pack(packet_id)


def encode(packet: Packet) -> bytes:
    """One packet's bytes. Raises ValueError where a field is too long for the protocol."""
    match packet:
        case Connect():
            return _encode_connect(packet)
        case Connack(return_code, session_present):
            return bytes((CONNACK << 4, 2, session_present, return_code))
        case Publish(topic, payload, qos, retain, dup, packet_id):
            return publish_header(encode_field(topic), len(payload), qos, retain, dup, packet_id) + payload
        case Puback(packet_id):
            return encode_puback(packet_id)
        case Subscribe(packet_id, requests):
            body = b"".join(encode_field(topic_filter) + bytes((qos,)) for topic_filter, qos in requests)
            return _with_id(SUBSCRIBE << 4 | 2, packet_id, body)
        case Suback(packet_id, codes):
            return _with_id(SUBACK << 4, packet_id, bytes(codes))
        case Unsubscribe(packet_id, filters):
            return _with_id(UNSUBSCRIBE << 4 | 2, packet_id, b"".join(map(encode_field, filters)))
        case Unsuback(packet_id):
            return _with_id(UNSUBACK << 4, packet_id, b"")
        case Pingreq():
            return b"\xc0\x00"
        case Pingresp():
            return b"\xd0\x00"
        case Disconnect():
            return b"\xe0\x00"


def _with_id(first: int, packet_id: int, body: bytes) -> bytes:
    return bytes((first,)) + encode_length(2 + len(body)) + _U16.pack(packet_id) + body


def _encode_connect(packet: Connect) -> bytes:
    flags = packet.clean_session << 1
    fields = [encode_field(packet.client_id)]
    if (will := packet.will) is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        fields += [encode_field(will.topic), encode_field(will.payload)]
    if packet.username is not None:
        flags |= 0x80
        fields.append(encode_field(packet.username))
    if packet.password is not None:
        flags |= 0x40
        fields.append(encode_field(packet.password))
    fixed = encode_field("MQTT") + bytes((packet.level, flags)) + _U16.pack(packet.keepalive)
    body = fixed + b"".join(fields)
    return bytes((CONNECT << 4,)) + encode_length(len(body)) + body


class _Body:
    """A cursor over one packet's body that refuses to read past its end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> memoryview:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise ProtocolError("a packet ends in the middle of a field")
        return self._data[start : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        high, low = self.take(2)
        return high << 8 | low

    def packet_id(self) -> int:
        value = self.u16()
        if value == 0:
            raise ProtocolError("packet id 0")
        return value

    def blob(self) -> bytes:
        return bytes(self.take(self.u16()))

    def text(self) -> str:
        return _text(self.take(self.u16()))

    def more(self) -> bool:
        return self._at < len(self._data)

    def end(self) -> None:
        if self.more():
            raise ProtocolError("bytes follow the last field of a packet")


def _text(data: memoryview) -> str:
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError("a string is not UTF-8") from error
    if "\0" in text:
        raise ProtocolError("a string contains U+0000")
    return text


def decode(first: int, body: memoryview, *, borrowed: bool = True) -> Packet:
    """The packet whose first byte is `first` and whose remaining bytes are `body`.

    The payload of a PUBLISH is copied out where `body` is `borrowed`, a view of a buffer that will be reused;
    otherwise it is a view of `body`. Raises ProtocolError.
    """
    kind = first >> 4
    if first not in FIRST_BYTES:
        raise ProtocolError(f"packet type {kind} with flags {first & 15}")
    if kind == PUBLISH:
        return _decode_publish(first, body, borrowed)
    cursor = _Body(body)
    packet = _DECODERS[kind](cursor)
    if not isinstance(packet, Connect) or packet.level == PROTOCOL_LEVEL:
        cursor.end()
    return packet


def _decode_publish(first: int, body: memoryview, borrowed: bool) -> Publish:
    qos = first >> 1 & 3
    size = len(body)
    topic_end = 2 + (body[0] << 8 | body[1]) if size >= 2 else size + 1
    start = topic_end + 2 if qos else topic_end
    if start > size:
        raise ProtocolError("a packet ends in the middle of a field")
    packet_id = body[topic_end] << 8 | body[topic_end + 1] if qos else 0
    if (qos and not packet_id) or (first & 8 and not qos):
        raise ProtocolError("PUBLISH with packet id 0, or with DUP and QoS 0")
    topic = _text(body[2:topic_end])
    if not topic or "+" in topic or "#" in topic:
        raise ProtocolError("PUBLISH to an empty topic or to a topic filter")
    payload = body[start:]
    return Publish(topic, bytes(payload) if borrowed else payload, qos, bool(first & 1), bool(first & 8), packet_id)


def _decode_connect(body: _Body) -> Connect:
    name, level = body.text(), body.byte()
    if name not in ("MQTT", "MQIsdp"):
        raise ProtocolError("not an MQTT connection")
    if name != "MQTT" or level != PROTOCOL_LEVEL:
        return Connect("", level=level if level != PROTOCOL_LEVEL else 3)
    flags, keepalive = body.byte(), body.u16()
    client_id = body.text()
    will = None
    if flags & 4:
        will = Will(body.text(), body.blob(), flags >> 3 & 3, bool(flags & 0x20))
        if will.qos == 3 or not will.topic or "+" in will.topic or "#" in will.topic:
            raise ProtocolError("a will with a forbidden QoS or topic")
    elif flags & 0x38:
        raise ProtocolError("flags of a will without a will")
    if flags & 1 or flags & 0xC0 == 0x40:
        raise ProtocolError("a reserved flag, or a password without a user name")
    username = body.text() if flags & 0x80 else None
    password = body.blob() if flags & 0x40 else None
    return Connect(client_id, bool(flags & 2), keepalive, username, password, will)


def _decode_connack(body: _Body) -> Connack:
    flags, return_code = body.byte(), body.byte()
    if flags > 1:
        raise ProtocolError("CONNACK with reserved flags")
    return Connack(return_code, bool(flags))


def _decode_subscribe(body: _Body) -> Subscribe:
    packet_id = body.packet_id()
    requests = []
    while body.more():
        topic_filter, qos = body.text(), body.byte()
        if qos > 2:
            raise ProtocolError(f"SUBSCRIBE with QoS {qos}")
        requests.append((topic_filter, qos))
    if not requests:
        raise ProtocolError("SUBSCRIBE without a topic filter")
    return Subscribe(packet_id, tuple(requests))


def _decode_suback(body: _Body) -> Suback:
    packet_id = body.packet_id()
    codes = []
    while body.more():
        codes.append(body.byte())
    return Suback(packet_id, tuple(codes))


def _decode_unsubscribe(body: _Body) -> Unsubscribe:
    packet_id = body.packet_id()
    filters = []
    while body.more():
        filters.append(body.text())
    if not filters:
        raise ProtocolError("UNSUBSCRIBE without a topic filter")
    return Unsubscribe(packet_id, tuple(filters))


_DECODERS: dict[int, Callable[[_Body], Packet]] = {
    CONNECT: _decode_connect,
    CONNACK: _decode_connack,
    PUBACK: lambda body: Puback(body.packet_id()),
    SUBSCRIBE: _decode_subscribe,
    SUBACK: _decode_suback,
    UNSUBSCRIBE: _decode_unsubscribe,
    UNSUBACK: lambda body: Unsuback(body.packet_id()),
    PINGREQ: lambda body: Pingreq(),
    PINGRESP: lambda body: Pingresp(),
    DISCONNECT: lambda body: Disconnect(),
}
