"""The bytes of CONNECT and CONNACK, which choose the version that all later packets are written in."""

from __future__ import annotations

from broker.fields import U16, Cursor, FieldError, encode_field
from broker.packets import V5, V311, BadConnectError, Connack, Connect, Will
from broker.properties import (
    CONNACK,
    CONNECT,
    NO_PROPERTIES,
    WILL,
    decode_properties,
    encode_properties,
    with_length,
)
from broker.reasons import Reason

V31 = 3  # named MQIsdp; not served


def encode_connect(packet: Connect) -> bytes:
    flags = packet.clean_session << 1
    sections = packet.level == V5
    fields = [encode_field(packet.client_id)]
    if (will := packet.will) is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        fields += [with_length(encode_properties(will.properties))] if sections else []
        fields += [encode_field(will.topic), encode_field(will.payload)]
    if packet.username is not None:
        flags |= 0x80
        fields.append(encode_field(packet.username))
    if packet.password is not None:
        flags |= 0x40
        fields.append(encode_field(packet.password))
    fixed = encode_field("MQTT") + bytes((packet.level, flags)) + U16.pack(packet.keepalive)
    if sections:
        fixed += with_length(encode_properties(packet.properties))
    return fixed + b"".join(fields)


def encode_connack(packet: Connack, version: int) -> bytes:
    fixed = bytes((packet.session_present, packet.return_code))
    return fixed + with_length(encode_properties(packet.properties)) if version == V5 else fixed


def decode_connect(body: Cursor) -> Connect:
    """A CONNECT; of another level than 4 and 5, its level only. Raises FieldError, and BadConnectError for MQTT 5."""
    name, level = body.text(), body.byte()
    if name not in ("MQTT", "MQIsdp"):
        raise FieldError("not an MQTT connection")
    if name != "MQTT" or level not in (V311, V5):
        return Connect("", level=level if name == "MQTT" else V31)
    try:
        connect = _decode_rest(body, level)
        body.end()
    except FieldError as error:
        if level == V5:
            raise BadConnectError(str(error), error.reason) from error
        raise
    return connect


def _decode_rest(body: Cursor, level: int) -> Connect:
    flags, keepalive = body.byte(), body.u16()
    if flags & 1 or (level == V311 and flags & 0xC0 == 0x40):
        raise FieldError("a reserved flag, or a password without a user name")
    properties = decode_properties(body, CONNECT) if level == V5 else NO_PROPERTIES
    if properties.auth_data is not None and properties.auth_method is None:
        raise FieldError("authentication data without a method", Reason.PROTOCOL_ERROR)
    client_id = body.text()
    will = _decode_will(body, flags, level)
    username = body.text() if flags & 0x80 else None
    password = body.blob() if flags & 0x40 else None
    return Connect(client_id, bool(flags & 2), keepalive, username, password, will, level, properties)


def _decode_will(body: Cursor, flags: int, level: int) -> Will | None:
    if not flags & 4:
        if flags & 0x38:
            raise FieldError("flags of a will without a will")
        return None
    properties = decode_properties(body, WILL) if level == V5 else NO_PROPERTIES
    will = Will(body.text(), body.blob(), flags >> 3 & 3, bool(flags & 0x20), properties)
    if will.qos == 3:
        raise FieldError("a will with QoS 3")
    if not will.topic or "+" in will.topic or "#" in will.topic:
        raise FieldError("a will to a topic filter", Reason.TOPIC_NAME_INVALID)
    return will


def decode_connack(body: Cursor, version: int) -> Connack:
    flags, code = body.byte(), body.byte()
    if flags > 1:
        raise FieldError("CONNACK with reserved flags")
    # An MQTT 3.1.1 broker answers a CONNECT of MQTT 5 in its own way, without properties.
    properties = decode_properties(body, CONNACK) if version == V5 and body.more() else NO_PROPERTIES
    return Connack(code, bool(flags), properties)
