"""MQTT 5's properties: which there are, where each may stand, and their bytes (MQTT 5, 2.2.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from broker.fields import U16, U32, Cursor, FieldError, encode_field, encode_length
from broker.reasons import Reason

WILL, CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(8)  # packet types; 0 stands for a will
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)

MAX_USER_PROPERTIES = 512  # of one packet: a megabyte of them would become forty in memory


@dataclass(frozen=True, slots=True)
class Properties:
    """The properties of one packet, in the order of their identifiers. None: absent. Intervals are seconds."""

    payload_format: int | None = None
    message_expiry: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_ids: tuple[int, ...] = ()
    session_expiry: int | None = None
    assigned_client_id: str | None = None
    server_keepalive: int | None = None
    auth_method: str | None = None
    auth_data: bytes | None = None
    request_problem_info: int | None = None
    will_delay: int | None = None
    request_response_info: int | None = None
    response_info: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcards_available: int | None = None
    subscription_ids_available: int | None = None
    shared_available: int | None = None


NO_PROPERTIES = Properties()


class _Kind(NamedTuple):
    encode: Callable[[Any], bytes]
    decode: Callable[[Cursor], Any]


def _read_pair(cursor: Cursor) -> tuple[str, str]:
    return cursor.text(), cursor.text()


_BYTE = _Kind(lambda value: bytes((value,)), Cursor.byte)
_U16 = _Kind(U16.pack, Cursor.u16)
_U32 = _Kind(U32.pack, Cursor.u32)
_LENGTH = _Kind(encode_length, Cursor.length)
_TEXT = _Kind(encode_field, Cursor.text)
_BLOB = _Kind(encode_field, Cursor.blob)
_PAIR = _Kind(lambda pair: encode_field(pair[0]) + encode_field(pair[1]), _read_pair)

_MESSAGE = (PUBLISH, WILL)
_ANSWERS = (CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)
_LOGIN = (CONNECT, CONNACK, AUTH)
_BOTH = (CONNECT, CONNACK)

_RULES: dict[int, tuple[_Kind, tuple[int, ...]]] = {  # identifier: how it is written, and where it may stand
    0x01: (_BYTE, _MESSAGE),
    0x02: (_U32, _MESSAGE),
    0x03: (_TEXT, _MESSAGE),
    0x08: (_TEXT, _MESSAGE),
    0x09: (_BLOB, _MESSAGE),
    0x0B: (_LENGTH, (PUBLISH, SUBSCRIBE)),
    0x11: (_U32, (CONNECT, CONNACK, DISCONNECT)),
    0x12: (_TEXT, (CONNACK,)),
    0x13: (_U16, (CONNACK,)),
    0x15: (_TEXT, _LOGIN),
    0x16: (_BLOB, _LOGIN),
    0x17: (_BYTE, (CONNECT,)),
    0x18: (_U32, (WILL,)),
    0x19: (_BYTE, (CONNECT,)),
    0x1A: (_TEXT, (CONNACK,)),
    0x1C: (_TEXT, (CONNACK, DISCONNECT)),
    0x1F: (_TEXT, _ANSWERS),
    0x21: (_U16, _BOTH),
    0x22: (_U16, _BOTH),
    0x23: (_U16, (PUBLISH,)),
    0x24: (_BYTE, (CONNACK,)),
    0x25: (_BYTE, (CONNACK,)),
    0x26: (_PAIR, (*_MESSAGE, CONNECT, SUBSCRIBE, UNSUBSCRIBE, *_ANSWERS)),
    0x27: (_U32, _BOTH),
    0x28: (_BYTE, (CONNACK,)),
    0x29: (_BYTE, (CONNACK,)),
    0x2A: (_BYTE, (CONNACK,)),
}
_NAMES = {identifier: field.name for identifier, field in zip(_RULES, fields(Properties), strict=True)}
_REPEATED = frozenset((0x0B, 0x26))
_NEVER_ZERO = {
    0x0B: Reason.PROTOCOL_ERROR,
    0x21: Reason.PROTOCOL_ERROR,
    0x23: Reason.TOPIC_ALIAS_INVALID,
    0x27: Reason.PROTOCOL_ERROR,
}


def encode_properties(properties: Properties) -> bytes:
    """The bytes of all that is present, without their length."""
    if properties is NO_PROPERTIES:
        return b""
    out = bytearray()
    for identifier, (kind, _) in _RULES.items():
        value = getattr(properties, _NAMES[identifier])
        for one in value if identifier in _REPEATED else () if value is None else (value,):
            out.append(identifier)
            out += kind.encode(one)
    return bytes(out)


def with_length(encoded: bytes) -> bytes:
    """A packet's section of properties."""
    return encode_length(len(encoded)) + encoded


def decode_properties(cursor: Cursor, packet: int) -> Properties:
    """The section of properties of a packet of this type. Raises FieldError."""
    size = cursor.length()
    if size == 0:
        return NO_PROPERTIES
    section, found = Cursor(cursor.take(size)), dict[str, Any]()
    while section.more():
        identifier = section.length()
        kind, places = _RULES.get(identifier, (_BYTE, ()))
        if packet not in places:
            raise FieldError(f"property {identifier:#04x} in packet type {packet}", _misplaced(identifier))
        value = kind.decode(section)
        _check(identifier, kind, value)
        name = _NAMES[identifier]
        if identifier in _REPEATED and (identifier == 0x26 or packet == PUBLISH):
            found.setdefault(name, []).append(value)
            if len(found[name]) > MAX_USER_PROPERTIES:
                raise FieldError(f"over {MAX_USER_PROPERTIES} properties of one kind", Reason.QUOTA_EXCEEDED)
        elif name in found:
            raise FieldError(f"property {identifier:#04x} twice", Reason.PROTOCOL_ERROR)
        else:
            found[name] = [value] if identifier in _REPEATED else value
    values: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in found.items()}
    return Properties(**values)


def _misplaced(identifier: int) -> Reason:
    return Reason.PROTOCOL_ERROR if identifier in _RULES else Reason.MALFORMED_PACKET


def _check(identifier: int, kind: _Kind, value: Any) -> None:
    if kind is _BYTE and value > 1:
        raise FieldError(f"property {identifier:#04x} is {value}", Reason.PROTOCOL_ERROR)
    if value == 0 and identifier in _NEVER_ZERO:
        raise FieldError(f"property {identifier:#04x} is 0", _NEVER_ZERO[identifier])
    if identifier == 0x08 and (not value or "+" in value or "#" in value):
        raise FieldError("a response topic that is a topic filter", Reason.PROTOCOL_ERROR)


def forwarded(properties: Properties) -> bytes:
    """The bytes of what a receiver gets unaltered: all that a publisher may say but the expiry and the alias."""
    if properties is NO_PROPERTIES:
        return b""
    return encode_properties(
        replace(properties, message_expiry=None, topic_alias=None, subscription_ids=(), will_delay=None)
    )
