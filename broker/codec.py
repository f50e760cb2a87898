"""The bytes of MQTT packets, of versions 3.1.1 and 5: encode and decode, without I/O.

Only `decode` meets bytes of a stranger, and all that it can raise is `ProtocolError`. A CONNECT of another protocol
level is decoded as far as its level, because what follows differs between levels and the answer needs no more.
"""

from __future__ import annotations

from collections.abc import Callable

from broker import handshake, subscribing
from broker.fields import U16, Cursor, FieldError, decode_text, encode_field, encode_length
from broker.packets import (
    V5,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    ProtocolError,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from broker.properties import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    NO_PROPERTIES,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    Properties,
    decode_properties,
    encode_properties,
    with_length,
)
from broker.reasons import Reason

_Ack = Puback | Pubrec | Pubrel | Pubcomp
_ACKS: dict[int, type[_Ack]] = {PUBACK: Puback, PUBREC: Pubrec, PUBREL: Pubrel, PUBCOMP: Pubcomp}
_ACK_TYPES = {packet: kind for kind, packet in _ACKS.items()}
_FLAGGED = (PUBREL, SUBSCRIBE, UNSUBSCRIBE)  # their flags are 0010
FIRST_BYTES = frozenset(  # a packet's type and the flags that it may have; QoS 3 is nobody's
    {kind << 4 for kind in range(CONNECT, AUTH + 1) if kind not in (PUBLISH, *_FLAGGED)}
    | {kind << 4 | 2 for kind in _FLAGGED}
    | {PUBLISH << 4 | flags for flags in range(16) if flags & 6 != 6}
)

_TAKEN = (0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
_REASONS = {  # that each packet may carry on MQTT 5
    PUBACK: _TAKEN,
    PUBREC: _TAKEN,
    PUBREL: (0x00, 0x92),
    PUBCOMP: (0x00, 0x92),
    DISCONNECT: (0x00, 0x04, *range(0x80, 0x84), 0x87, 0x89, 0x8B, *range(0x8D, 0x91), *range(0x93, 0xA3)),
    AUTH: (0x00, 0x18, 0x19),
}


def publish_header(
    topic_field: bytes, payload_size: int, qos: int, retain: bool, dup: bool, packet_id: int, properties: bytes
) -> bytes:
    """All of a PUBLISH before its payload. `properties` is their section with its length, or nothing for 3.1.1."""
    first = PUBLISH << 4 | dup << 3 | qos << 1 | retain
    if qos:
        length = encode_length(len(topic_field) + 2 + len(properties) + payload_size)
        return b"%c%b%b%b%b" % (first, length, topic_field, U16.pack(packet_id), properties)
    length = encode_length(len(topic_field) + len(properties) + payload_size)
    return b"%c%b%b%b" % (first, length, topic_field, properties)


def encode_ack(kind: int, packet_id: int) -> bytes:
    """A PUBACK, PUBREC, PUBREL or PUBCOMP of success, which both versions write alike."""
    return b"%c\x02%b" % (kind << 4 | (kind == PUBREL) << 1, U16.pack(packet_id))


def encode(packet: Packet, version: int = V311) -> bytes:
    """One packet's bytes on a connection of this version. Raises ValueError where a field is too long for MQTT."""
    match packet:
        case Connect():
            return _whole(CONNECT << 4, handshake.encode_connect(packet))
        case Connack():
            return _whole(CONNACK << 4, handshake.encode_connack(packet, version))
        case Publish():
            return _encode_publish(packet, version)
        case Puback() | Pubrec() | Pubrel() | Pubcomp():
            return _encode_ack(packet, version)
        case Subscribe():
            return _whole(SUBSCRIBE << 4 | 2, subscribing.encode_list(packet, version))
        case Suback():
            return _whole(SUBACK << 4, subscribing.encode_list(packet, version))
        case Unsubscribe():
            return _whole(UNSUBSCRIBE << 4 | 2, subscribing.encode_list(packet, version))
        case Unsuback():
            return _whole(UNSUBACK << 4, subscribing.encode_list(packet, version))
        case Pingreq():
            return b"\xc0\x00"
        case Pingresp():
            return b"\xd0\x00"
        case Disconnect(reason, properties):
            return _whole(DISCONNECT << 4, _reason(reason, properties) if version == V5 else b"")
        case Auth(reason, properties):
            return _whole(AUTH << 4, _reason(reason, properties))


def _whole(first: int, body: bytes) -> bytes:
    return b"%c%b%b" % (first, encode_length(len(body)), body)


def _section(properties: Properties, version: int) -> bytes:
    return with_length(encode_properties(properties)) if version == V5 else b""


def _reason(reason: int, properties: Properties) -> bytes:
    """A reason code and properties at the end of a packet, left out where they say nothing."""
    if properties == NO_PROPERTIES:
        return bytes((reason,)) if reason else b""
    return bytes((reason,)) + _section(properties, V5)


def _encode_publish(packet: Publish, version: int) -> bytes:
    topic, section = encode_field(packet.topic), _section(packet.properties, version)
    flags = packet.qos, packet.retain, packet.dup, packet.packet_id
    return publish_header(topic, len(packet.payload), *flags, section) + packet.payload


def _encode_ack(packet: _Ack, version: int) -> bytes:
    kind = _ACK_TYPES[type(packet)]
    tail = _reason(packet.reason, packet.properties) if version == V5 else b""
    if not tail:
        return encode_ack(kind, packet.packet_id)
    return _whole(kind << 4 | (kind == PUBREL) << 1, U16.pack(packet.packet_id) + tail)


def decode(first: int, body: memoryview, version: int = V311, *, borrowed: bool = True) -> Packet:
    """The packet whose first byte is `first` and whose remaining bytes are `body`, on a connection of this version.

    The payload of a PUBLISH is copied out where `body` is `borrowed`, a view of a buffer that will be reused;
    otherwise it is a view of `body`. Raises ProtocolError.
    """
    kind = first >> 4
    if first not in FIRST_BYTES or (kind == AUTH and version != V5):
        raise ProtocolError(f"packet type {kind} with flags {first & 15}")
    try:
        if kind == PUBLISH:
            return _decode_publish(first, body, version, borrowed)
        cursor = Cursor(body)
        packet = _DECODERS[kind](cursor, kind, version)
        if not isinstance(packet, Connect) or packet.level in (V311, V5):
            cursor.end()
    except FieldError as error:
        raise ProtocolError(str(error), error.reason) from error
    return packet


def _decode_publish(first: int, body: memoryview, version: int, borrowed: bool) -> Publish:
    qos, size = first >> 1 & 3, len(body)
    topic_end = 2 + (body[0] << 8 | body[1]) if size >= 2 else size + 1
    start = topic_end + 2 if qos else topic_end
    if start > size:
        raise FieldError("a packet ends in the middle of a field")
    packet_id = body[topic_end] << 8 | body[topic_end + 1] if qos else 0
    if (qos and not packet_id) or (first & 8 and not qos):
        raise FieldError("PUBLISH with packet id 0, or with DUP and QoS 0", Reason.PROTOCOL_ERROR)
    topic, properties = decode_text(body[2:topic_end]), NO_PROPERTIES
    if version == V5:
        if start < size and body[start] == 0:
            start += 1
        else:
            cursor = Cursor(body[start:])
            properties = decode_properties(cursor, PUBLISH)
            start += cursor.at
    if "+" in topic or "#" in topic:
        raise FieldError("PUBLISH to a topic filter", Reason.TOPIC_NAME_INVALID)
    if not topic and properties.topic_alias is None:
        raise FieldError("PUBLISH to an empty topic", Reason.PROTOCOL_ERROR)
    payload = body[start:]
    whole = bytes(payload) if borrowed else payload
    return Publish(topic, whole, qos, bool(first & 1), bool(first & 8), packet_id, properties)


def _decode_ack(body: Cursor, kind: int, version: int) -> Packet:
    packet_id = body.packet_id()
    reason, properties = _decode_reason(body, kind) if version == V5 else (0, NO_PROPERTIES)
    return _ACKS[kind](packet_id, reason, properties)


def _decode_reason(body: Cursor, kind: int) -> tuple[int, Properties]:
    reason = body.byte() if body.more() else 0
    if reason not in _REASONS[kind]:
        raise FieldError(f"reason code {reason:#04x} in packet type {kind}", Reason.PROTOCOL_ERROR)
    return reason, decode_properties(body, kind) if body.more() else NO_PROPERTIES


def _decode_goodbye(body: Cursor, kind: int, version: int) -> Disconnect | Auth:
    reason, properties = _decode_reason(body, kind) if version == V5 else (0, NO_PROPERTIES)
    return (Disconnect if kind == DISCONNECT else Auth)(reason, properties)


_DECODERS: dict[int, Callable[[Cursor, int, int], Packet]] = {
    CONNECT: lambda body, kind, version: handshake.decode_connect(body),
    CONNACK: lambda body, kind, version: handshake.decode_connack(body, version),
    **dict.fromkeys(_ACKS, _decode_ack),
    SUBSCRIBE: subscribing.decode_subscribe,
    SUBACK: subscribing.decode_answer,
    UNSUBSCRIBE: subscribing.decode_unsubscribe,
    UNSUBACK: subscribing.decode_answer,
    PINGREQ: lambda body, kind, version: Pingreq(),
    PINGRESP: lambda body, kind, version: Pingresp(),
    DISCONNECT: _decode_goodbye,
    AUTH: _decode_goodbye,
}
