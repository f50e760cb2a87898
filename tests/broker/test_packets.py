"""The codec against literal bytes, by round trip, and against garbage; both versions of MQTT."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.codec import encode
from broker.fields import Cursor, encode_length
from broker.framing import BUFFER_BYTES, PacketReader
from broker.packets import (
    V5,
    V311,
    Auth,
    BadConnectError,
    Connack,
    Connect,
    Disconnect,
    Packet,
    PacketTooLargeError,
    Pingreq,
    Pingresp,
    ProtocolError,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Request,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from broker.properties import MAX_USER_PROPERTIES, Properties
from broker.reasons import Reason
from broker.subscribing import MAX_FILTERS

LITERAL = [
    (Connect("dev"), "10 0f 0004 4d515454 04 02 0000 0003 646576"),
    (
        Connect("d", False, 60, "u", b"\xff", Will("w", b"bye", 1, True)),
        "10 1b 0004 4d515454 04 ec 003c 0001 64 0001 77 0003 627965 0001 75 0001 ff",
    ),
    (Connack(0, True), "20 02 01 00"),
    (Connack(1), "20 02 00 01"),
    (Publish("a/b", b"hi"), "30 07 0003 612f62 6869"),
    (Publish("a/b", b"hi", 1, True, True, 10), "3b 09 0003 612f62 000a 6869"),
    (Publish("a", b"", 2, packet_id=1), "34 05 0001 61 0001"),
    (Puback(258), "40 02 0102"),
    (Pubrec(258), "50 02 0102"),
    (Pubrel(258), "62 02 0102"),
    (Pubcomp(258), "70 02 0102"),
    (Subscribe(1, (Request("a/#", 1), Request("+", 0))), "82 0c 0001 0003 612f23 01 0001 2b 00"),
    (Suback(1, (1, 128)), "90 04 0001 01 80"),
    (Unsubscribe(2, ("a",)), "a2 05 0002 0001 61"),
    (Unsuback(2), "b0 02 0002"),
    (Pingreq(), "c0 00"),
    (Pingresp(), "d0 00"),
    (Disconnect(), "e0 00"),
]
LITERAL_5 = [
    (
        Connect("d", level=V5, properties=Properties(session_expiry=10, receive_maximum=20)),
        "10 16 0004 4d515454 05 02 0000 08 11 0000000a 21 0014 0001 64",
    ),
    (
        Connect("", will=Will("w", b"x", properties=Properties(will_delay=5)), password=b"p", level=V5),
        "10 1c 0004 4d515454 05 46 0000 00 0000 05 18 00000005 0001 77 0001 78 0001 70",
    ),
    (Connack(0x87), "20 03 00 87 00"),
    (Connack(0, False, Properties(assigned_client_id="x", maximum_qos=1)), "20 09 00 00 06 12 0001 78 24 01"),
    (Publish("a", b"hi"), "30 06 0001 61 00 6869"),
    (
        Publish("", b"", 1, packet_id=1, properties=Properties(topic_alias=3, user=(("k", "v"), ("k", "w")))),
        "32 16 0000 0001 11 23 0003 26 0001 6b 0001 76 26 0001 6b 0001 77",
    ),
    (Publish("a", b"", properties=Properties(subscription_ids=(1, 300))), "30 09 0001 61 05 0b 01 0b ac02"),
    (Puback(1), "40 02 0001"),
    (Puback(1, 0x10), "40 03 0001 10"),
    (Pubrec(1, 0x87, Properties(reason_string="no")), "50 09 0001 87 05 1f 0002 6e6f"),
    (Pubrel(1, 0x92), "62 03 0001 92"),
    (
        Subscribe(1, (Request("a", 2, True, True, 2),), Properties(subscription_ids=(1,))),
        "82 09 0001 02 0b01 0001 61 2e",
    ),
    (Suback(1, (2, 0x8F)), "90 05 0001 00 02 8f"),
    (Unsubscribe(2, ("a",)), "a2 06 0002 00 0001 61"),
    (Unsuback(2, (0, 0x11)), "b0 05 0002 00 00 11"),
    (Disconnect(), "e0 00"),
    (Disconnect(4), "e0 01 04"),
    (Disconnect(0, Properties(session_expiry=1)), "e0 07 00 05 11 00000001"),
    (Auth(0x18, Properties(auth_method="m")), "f0 06 18 04 15 0001 6d"),
]
MALFORMED = {
    "a reserved packet type": "00 00",
    "QoS 3": "36 05 0001 61 0001",
    "DUP without QoS": "38 03 0001 61",
    "packet id 0": "32 05 0001 61 0000",
    "a topic with a wildcard": "30 03 0001 23",
    "an empty topic": "30 02 0000",
    "a topic past the end": "30 03 0009 61",
    "a topic that is not UTF-8": "30 03 0001 ff",
    "a topic with a surrogate": "30 05 0003 eda080",
    "a topic with a NUL": "30 03 0001 00",
    "SUBSCRIBE with the flags of nothing": "80 06 0001 0001 61 00",
    "SUBSCRIBE without a filter": "82 02 0001",
    "SUBSCRIBE with QoS 3": "82 06 0001 0001 61 03",
    "SUBSCRIBE with options of MQTT 5": "82 06 0001 0001 61 04",
    "UNSUBSCRIBE without a filter": "a2 02 0001",
    "PUBACK with a tail": "40 03 0001 00",
    "PUBACK without an id": "40 01 00",
    "PUBREL with the flags of nothing": "60 02 0001",
    "AUTH on 3.1.1": "f0 00",
    "another protocol": "10 0c 0004 48545450 04 02 0000 0000",
    "a reserved CONNECT flag": "10 0c 0004 4d515454 04 03 0000 0000",
    "a password without a user": "10 0f 0004 4d515454 04 42 0000 0000 0001 61",
    "a will QoS without a will": "10 0c 0004 4d515454 04 0a 0000 0000",
    "a length of five bytes": "30 ff ff ff ff 01",
}
WRONG_5 = {  # and the reason that its sender is told
    "a property twice": ("30 0a 0001 61 06 23 0001 23 0001", Reason.PROTOCOL_ERROR),
    "a property of another packet": ("30 07 0001 61 03 21 0001", Reason.PROTOCOL_ERROR),
    "an unknown property": ("30 06 0001 61 02 7f 00", Reason.MALFORMED_PACKET),
    "properties past the end": ("30 05 0001 61 05 01", Reason.MALFORMED_PACKET),
    "no properties where they belong": ("30 03 0001 61", Reason.MALFORMED_PACKET),
    "a length with a byte too many": ("30 07 0001 61 8200 01 01", Reason.MALFORMED_PACKET),
    "a payload format that is neither": ("30 06 0001 61 02 01 02", Reason.PROTOCOL_ERROR),
    "topic alias 0": ("30 07 0001 61 03 23 0000", Reason.TOPIC_ALIAS_INVALID),
    "no topic and no alias": ("30 03 0000 00", Reason.PROTOCOL_ERROR),
    "a response topic that is a filter": ("30 08 0001 61 04 08 0001 23", Reason.PROTOCOL_ERROR),
    "subscription identifier 0": ("82 09 0001 02 0b00 0001 61 00", Reason.PROTOCOL_ERROR),
    "two subscription identifiers": ("82 0b 0001 04 0b010b02 0001 61 00", Reason.PROTOCOL_ERROR),
    "retain handling 3": ("82 07 0001 00 0001 61 30", Reason.PROTOCOL_ERROR),
    "a reserved option": ("82 07 0001 00 0001 61 40", Reason.PROTOCOL_ERROR),
    "an unknown reason": ("40 03 0001 05", Reason.PROTOCOL_ERROR),
    "a NUL in a user property": ("30 0b 0001 61 07 26 0001 00 0001 61", Reason.MALFORMED_PACKET),
}


@pytest.mark.parametrize(("packet", "text"), LITERAL, ids=lambda value: type(value).__name__)
def test_each_packet_is_exactly_these_bytes(packet: Packet, text: str) -> None:
    """Protects interoperability: both directions against the standard's layout."""
    data = bytes.fromhex(text)
    assert encode(packet) == data
    assert PacketReader(1024).feed(data) == [packet]


@pytest.mark.parametrize(("packet", "text"), LITERAL_5, ids=lambda value: type(value).__name__)
def test_each_packet_of_mqtt_5_is_exactly_these_bytes(packet: Packet, text: str) -> None:
    """Protects the same for MQTT 5: reason codes, and properties in the order of their identifiers."""
    data = bytes.fromhex(text)
    assert encode(packet, V5) == data
    assert PacketReader(1024, V5).feed(data) == [packet]


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_bytes_raise_protocol_error(text: str) -> None:
    """Protects the one place that reads bytes of strangers."""
    with pytest.raises(ProtocolError):
        PacketReader(2**28).feed(bytes.fromhex(text))


@pytest.mark.parametrize(("text", "reason"), WRONG_5.values(), ids=WRONG_5.keys())
def test_wrong_properties_are_refused_with_a_reason(text: str, reason: Reason) -> None:
    """Protects MQTT 5's rules: what may stand where, once, and with which value."""
    with pytest.raises(ProtocolError) as raised:
        PacketReader(2**28, V5).feed(bytes.fromhex(text))
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        ("03 00 0000 03 21 0000 0000", Reason.MALFORMED_PACKET),  # a reserved flag
        ("02 00 0000 03 21 0000 0000", Reason.MALFORMED_PACKET),  # a byte too many
        ("02 0000 03 21 0000 0000", Reason.PROTOCOL_ERROR),  # receive maximum 0
        ("02 0000 04 16 0001 61 0000", Reason.PROTOCOL_ERROR),  # data of no authentication method
        ("06 0000 00 0000 00 0001 23 0000", Reason.TOPIC_NAME_INVALID),  # a will to a filter
    ],
)
def test_a_wrong_connect_of_mqtt_5_can_be_answered(tail: str, reason: Reason) -> None:
    """Protects the answer: who speaks MQTT 5 is told in a CONNACK what is wrong."""
    body = bytes.fromhex("0004 4d515454 05" + tail)
    with pytest.raises(BadConnectError) as raised:
        PacketReader(1024).feed(b"\x10" + encode_length(len(body)) + body)
    assert raised.value.reason == reason


def test_a_variable_byte_integer_at_its_steps() -> None:
    """Protects packets at the sizes where the length grows by a byte."""
    lengths = [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455]
    expected = ["00", "7f", "8001", "ff7f", "808001", "ffff7f", "80808001", "ffffff7f"]
    assert [encode_length(length).hex() for length in lengths] == expected
    assert [Cursor(memoryview(bytes.fromhex(text))).length() for text in expected] == lengths


def test_another_protocol_level_is_read_as_far_as_its_level() -> None:
    """Protects the fast refusal of versions that are not served, whose CONNECT may go on in any way."""
    v6 = bytes.fromhex("10 10 0004 4d515454 06 02 003c 03 21 0014 0000")
    v31 = bytes.fromhex("10 0e 0006 4d5149736470 03 02 003c 0000")
    packets = PacketReader(1024).feed(v6) + PacketReader(1024).feed(v31)
    assert [packet.level for packet in packets if isinstance(packet, Connect)] == [6, 3]


def test_a_connect_sets_the_version_of_what_follows() -> None:
    """Protects clients that do not wait for CONNACK: their next packets are read in their own version."""
    packets = [Connect("x", level=V5), Publish("a", b"b", properties=Properties(content_type="c"))]
    assert PacketReader(1024).feed(b"".join(encode(packet, V5) for packet in packets)) == packets


def test_lists_in_one_packet_are_bounded() -> None:
    """Protects memory: a megabyte of two-byte filters or properties would become forty as values."""
    many = Unsubscribe(1, ("a",) * (MAX_FILTERS + 1)), Subscribe(1, (("a", 0),) * (MAX_FILTERS + 1))
    properties = Publish("a", b"", properties=Properties(user=(("k", ""),) * (MAX_USER_PROPERTIES + 1)))
    for packet in (*many, properties):
        with pytest.raises(ProtocolError) as raised:
            PacketReader(2**20, V5).feed(encode(packet, V5))
        assert raised.value.reason == Reason.QUOTA_EXCEEDED


def test_an_oversize_packet_is_refused_by_its_header() -> None:
    """Protects memory: the size is judged before a byte of the body is stored."""
    limit = len(encode(Publish("a", bytes(100))))
    assert PacketReader(limit).feed(encode(Publish("a", bytes(100))))
    with pytest.raises(PacketTooLargeError):
        PacketReader(limit).feed(encode(Publish("a", bytes(101)))[:2])


@pytest.mark.parametrize("version", [V311, V5])
def test_a_large_payload_is_received_in_place(version: int) -> None:
    """Protects throughput: a payload over the buffer's size is read by the socket into its final place."""
    reader = PacketReader(2**20, version)
    data = encode(Publish("a", bytes(range(256)) * 1000, 1, packet_id=1), version)
    reader.buffer()[:8] = data[:8]
    reader.advance(8)
    assert reader.next() is None
    rest = reader.buffer()
    assert len(rest) == len(data) - 8
    rest[:] = data[8:]
    reader.advance(len(rest))
    packet = reader.next()
    assert isinstance(packet, Publish)
    assert isinstance(packet.payload, memoryview)
    assert packet.payload == data[-256_000:]


def test_a_small_payload_is_a_copy() -> None:
    """Protects queued messages: the buffer they came from is used again."""
    reader = PacketReader(1024)
    (packet,) = reader.feed(encode(Publish("a", b"first")))
    reader.feed(encode(Publish("a", b"later")))
    assert packet == Publish("a", b"first")


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=20)
PACKET_ID = st.integers(1, 65535)
SECONDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([0, 1, 120, 300, BUFFER_BYTES - 20, BUFFER_BYTES, 3 * BUFFER_BYTES])
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
MAYBE = st.none() | TEXT
MESSAGE = st.builds(
    Properties,
    payload_format=st.none() | st.integers(0, 1),
    message_expiry=st.none() | SECONDS,
    content_type=MAYBE,
    response_topic=MAYBE,
    correlation_data=st.none() | st.binary(max_size=20),
    user=PAIRS,
)
TOLD = st.builds(Properties, reason_string=MAYBE, user=PAIRS)
LOGIN = st.builds(
    Properties,
    session_expiry=st.none() | SECONDS,
    receive_maximum=st.none() | PACKET_ID,
    maximum_packet_size=st.none() | st.integers(1, 2**32 - 1),
    topic_alias_maximum=st.none() | st.integers(0, 65535),
    user=PAIRS,
)
WILLS = st.builds(Will, TEXT, st.binary(max_size=50), st.integers(0, 2), st.booleans())
REQUESTS = st.tuples(TEXT, st.integers(0, 2)).map(lambda pair: Request(*pair))
REQUESTS_5 = st.builds(Request, TEXT, st.integers(0, 2), st.booleans(), st.booleans(), st.integers(0, 2))
BOTH: st.SearchStrategy[Packet] = st.one_of(
    st.builds(Publish, TEXT, SIZES.map(bytes), st.just(0), st.booleans()),
    st.builds(Publish, TEXT, SIZES.map(bytes), st.sampled_from([1, 2]), st.booleans(), st.booleans(), PACKET_ID),
    st.builds(Subscribe, PACKET_ID, st.lists(REQUESTS, min_size=1, max_size=5).map(tuple)),
    st.builds(Unsubscribe, PACKET_ID, st.lists(TEXT, min_size=1, max_size=5).map(tuple)),
    st.builds(Suback, PACKET_ID, st.lists(st.sampled_from([0, 1, 2, 128]), max_size=5).map(tuple)),
    *(st.builds(kind, PACKET_ID) for kind in (Puback, Pubrec, Pubrel, Pubcomp)),
)
CONNECTS = st.builds(
    Connect,
    TEXT,
    st.booleans(),
    st.integers(0, 65535),
    TEXT,
    st.none() | st.binary(max_size=50),
    st.none() | WILLS,
)
ONLY_5: st.SearchStrategy[Packet] = st.one_of(
    st.builds(Publish, TEXT, SIZES.map(bytes), properties=MESSAGE),
    st.builds(Subscribe, PACKET_ID, st.lists(REQUESTS_5, min_size=1, max_size=5).map(tuple)),
    st.builds(Puback, PACKET_ID, st.sampled_from([0, 0x10, 0x87]), TOLD),
    st.builds(Pubcomp, PACKET_ID, st.sampled_from([0, 0x92]), TOLD),
    st.builds(Unsuback, PACKET_ID, st.lists(st.sampled_from([0, 0x11]), max_size=5).map(tuple), TOLD),
    st.builds(Disconnect, st.sampled_from([0, 4, 0x8E]), TOLD),
    st.builds(Connack, st.sampled_from([0, 0x87]), st.booleans(), LOGIN),
)
PACKETS_311 = BOTH | CONNECTS
PACKETS_5 = BOTH | ONLY_5 | st.builds(dataclasses.replace, CONNECTS, level=st.just(V5), properties=LOGIN)
STREAMS = st.one_of(
    st.tuples(st.just(V311), st.lists(PACKETS_311, max_size=6)), st.tuples(st.just(V5), st.lists(PACKETS_5, max_size=6))
)


@settings(deadline=None)
@given(STREAMS, st.lists(st.integers(1, 90_000), max_size=8))
def test_packets_survive_any_cutting_of_the_stream(stream: tuple[int, list[Packet]], cuts: list[int]) -> None:
    """Protects the reader: TCP may cut a stream anywhere."""
    version, packets = stream
    data = b"".join(encode(packet, version) for packet in packets)
    reader, out = PacketReader(2**20, version), []
    for cut in cuts:
        out += reader.feed(data[:cut])
        data = data[cut:]
    out += reader.feed(data)
    assert list(map(_plain, out)) == packets


def _plain(packet: Packet) -> Packet:
    if isinstance(packet, Publish):
        return dataclasses.replace(packet, payload=bytes(packet.payload))
    return packet


@settings(deadline=None)
@given(st.sampled_from([V311, V5]), st.integers(0, 255), st.binary(max_size=40))
def test_garbage_raises_nothing_else(version: int, first: int, body: bytes) -> None:
    """Protects the broker's loop: no bytes of a stranger raise anything but ProtocolError."""
    try:
        PacketReader(1000, version).feed(bytes((first,)) + encode_length(len(body)) + body)
        PacketReader(1000, version).feed(body)
    except ProtocolError:
        pass


@settings(deadline=None)
@given(PACKETS_5, st.data())
def test_a_changed_byte_raises_nothing_else(packet: Packet, data: st.DataObject) -> None:
    """Protects against damage deep inside a packet that was once valid."""
    raw = bytearray(encode(packet, V5)[:200])
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        PacketReader(2**20, V5).feed(bytes(raw))
