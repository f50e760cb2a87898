"""The bytes of SUBSCRIBE, UNSUBSCRIBE and their answers: an id, properties on MQTT 5, and a list."""

from __future__ import annotations

from broker.fields import U16, Cursor, FieldError, encode_field
from broker.packets import V5, Request, Suback, Subscribe, Unsuback, Unsubscribe
from broker.properties import (
    NO_PROPERTIES,
    SUBACK,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Properties,
    decode_properties,
    encode_properties,
    with_length,
)
from broker.reasons import Reason

MAX_FILTERS = 4096  # of one packet: a megabyte of them would become forty in memory


def encode_list(packet: Subscribe | Unsubscribe | Suback | Unsuback, version: int) -> bytes:
    """The body of one of the four."""
    match packet:
        case Subscribe():
            rest = b"".join(_encode_request(Request(*request)) for request in packet.requests)
        case Unsubscribe():
            rest = b"".join(map(encode_field, packet.filters))
        case Suback():
            rest = bytes(packet.codes)
        case Unsuback():
            rest = bytes(packet.codes) if version == V5 else b""
    section = with_length(encode_properties(packet.properties)) if version == V5 else b""
    return U16.pack(packet.packet_id) + section + rest


def _encode_request(request: Request) -> bytes:
    options = request.qos | request.no_local << 2 | request.retain_as_published << 3 | request.retain_handling << 4
    return encode_field(request.topic_filter) + bytes((options,))


def decode_subscribe(body: Cursor, kind: int, version: int) -> Subscribe:
    packet_id, properties = _decode_id(body, kind, version)
    requests: list[Request] = []
    while body.more():
        topic_filter, options = body.text(), body.byte()
        if options & 3 == 3 or options > (0x2F if version == V5 else 2):
            raise FieldError(f"SUBSCRIBE with options {options:#04x}", Reason.PROTOCOL_ERROR)
        requests.append(Request(topic_filter, options & 3, bool(options & 4), bool(options & 8), options >> 4))
        _limit(len(requests))
    return Subscribe(packet_id, tuple(requests), properties)


def decode_unsubscribe(body: Cursor, kind: int, version: int) -> Unsubscribe:
    packet_id, properties = _decode_id(body, kind, version)
    filters: list[str] = []
    while body.more():
        filters.append(body.text())
        _limit(len(filters))
    return Unsubscribe(packet_id, tuple(filters), properties)


def decode_answer(body: Cursor, kind: int, version: int) -> Suback | Unsuback:
    packet_id, properties = _decode_id(body, kind, version)
    codes = bytes(body.rest()) if kind == SUBACK or version == V5 else b""
    return (Suback if kind == SUBACK else Unsuback)(packet_id, tuple(codes), properties)


def _decode_id(body: Cursor, kind: int, version: int) -> tuple[int, Properties]:
    packet_id = body.packet_id()
    properties = decode_properties(body, kind) if version == V5 else NO_PROPERTIES
    if kind in (SUBSCRIBE, UNSUBSCRIBE) and not body.more():
        raise FieldError("no topic filter", Reason.PROTOCOL_ERROR)
    return packet_id, properties


def _limit(filters: int) -> None:
    if filters > MAX_FILTERS:
        raise FieldError(f"over {MAX_FILTERS} topic filters in one packet", Reason.QUOTA_EXCEEDED)
