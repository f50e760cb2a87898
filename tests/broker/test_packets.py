"""The codec against literal bytes, by round trip, and against garbage."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.codec import encode, encode_length
from broker.framing import BUFFER_BYTES, PacketReader
from broker.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    PacketTooLargeError,
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
    (Puback(258), "40 02 0102"),
    (Subscribe(1, (("a/#", 1), ("+", 0))), "82 0c 0001 0003 612f23 01 0001 2b 00"),
    (Suback(1, (1, 128)), "90 04 0001 01 80"),
    (Unsubscribe(2, ("a",)), "a2 05 0002 0001 61"),
    (Unsuback(2), "b0 02 0002"),
    (Pingreq(), "c0 00"),
    (Pingresp(), "d0 00"),
    (Disconnect(), "e0 00"),
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
    "a topic with a NUL": "30 03 0001 00",
    "SUBSCRIBE with the flags of nothing": "80 06 0001 0001 61 00",
    "SUBSCRIBE without a filter": "82 02 0001",
    "SUBSCRIBE with QoS 3": "82 06 0001 0001 61 03",
    "UNSUBSCRIBE without a filter": "a2 02 0001",
    "PUBACK with a tail": "40 03 0001 00",
    "PUBACK without an id": "40 01 00",
    "QoS 2's PUBREL": "62 02 0001",
    "another protocol": "10 0c 0004 48545450 04 02 0000 0000",
    "a reserved CONNECT flag": "10 0c 0004 4d515454 04 03 0000 0000",
    "a password without a user": "10 0f 0004 4d515454 04 42 0000 0000 0001 61",
    "a will QoS without a will": "10 0c 0004 4d515454 04 0a 0000 0000",
    "a length of five bytes": "30 ff ff ff ff 01",
}


@pytest.mark.parametrize(("packet", "text"), LITERAL, ids=lambda value: type(value).__name__)
def test_each_packet_is_exactly_these_bytes(packet: Packet, text: str) -> None:
    """Protects interoperability: both directions against the standard's layout."""
    data = bytes.fromhex(text)
    assert encode(packet) == data
    assert PacketReader(1024).feed(data) == [packet]


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_bytes_raise_protocol_error(text: str) -> None:
    """Protects the one place that reads bytes of strangers."""
    with pytest.raises(ProtocolError):
        PacketReader(2**28).feed(bytes.fromhex(text))


def test_remaining_length_at_its_steps() -> None:
    """Protects packets at the sizes where the length grows by a byte."""
    lengths = [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455]
    expected = ["00", "7f", "8001", "ff7f", "808001", "ffff7f", "80808001", "ffffff7f"]
    assert [encode_length(length).hex() for length in lengths] == expected


def test_another_protocol_level_is_read_as_far_as_its_level() -> None:
    """Protects the fast refusal of MQTT 5 clients, whose CONNECT goes on with properties."""
    v5 = bytes.fromhex("10 10 0004 4d515454 05 02 003c 03 21 0014 0000")
    v31 = bytes.fromhex("10 0e 0006 4d5149736470 03 02 003c 0000")
    packets = PacketReader(1024).feed(v5) + PacketReader(1024).feed(v31)
    assert [packet.level for packet in packets if isinstance(packet, Connect)] == [5, 3]


def test_an_oversize_packet_is_refused_by_its_header() -> None:
    """Protects memory: the size is judged before a byte of the body is stored."""
    limit = len(encode(Publish("a", bytes(100))))
    assert PacketReader(limit).feed(encode(Publish("a", bytes(100))))
    with pytest.raises(PacketTooLargeError):
        PacketReader(limit).feed(encode(Publish("a", bytes(101)))[:2])


def test_a_large_payload_is_received_in_place() -> None:
    """Protects throughput: a payload over the buffer's size is read by the socket into its final place."""
    reader, data = PacketReader(2**20), encode(Publish("a", bytes(range(256)) * 1000, 1, packet_id=1))
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
SIZES = st.sampled_from([0, 1, 120, 300, BUFFER_BYTES - 20, BUFFER_BYTES, 3 * BUFFER_BYTES])
WILLS = st.builds(Will, TEXT, st.binary(max_size=50), st.integers(0, 2), st.booleans())
PACKETS: st.SearchStrategy[Packet] = st.one_of(
    st.builds(
        Connect,
        TEXT,
        st.booleans(),
        st.integers(0, 65535),
        TEXT,
        st.none() | st.binary(max_size=50),
        st.none() | WILLS,
    ),
    st.builds(Publish, TEXT, SIZES.map(bytes), st.just(0), st.booleans()),
    st.builds(Publish, TEXT, SIZES.map(bytes), st.just(1), st.booleans(), st.booleans(), PACKET_ID),
    st.builds(Subscribe, PACKET_ID, st.lists(st.tuples(TEXT, st.integers(0, 2)), min_size=1, max_size=5).map(tuple)),
    st.builds(Unsubscribe, PACKET_ID, st.lists(TEXT, min_size=1, max_size=5).map(tuple)),
    st.builds(Suback, PACKET_ID, st.lists(st.sampled_from([0, 1, 2, 128]), max_size=5).map(tuple)),
    st.builds(Puback, PACKET_ID),
)


@settings(deadline=None)
@given(st.lists(PACKETS, max_size=6), st.lists(st.integers(1, 90_000), max_size=8))
def test_packets_survive_any_cutting_of_the_stream(packets: list[Packet], cuts: list[int]) -> None:
    """Protects the reader: TCP may cut a stream anywhere."""
    data, reader, out = b"".join(map(encode, packets)), PacketReader(2**20), []
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
@given(st.integers(0, 255), st.binary(max_size=40))
def test_garbage_raises_nothing_else(first: int, body: bytes) -> None:
    """Protects the broker's loop: no bytes of a stranger raise anything but ProtocolError."""
    try:
        PacketReader(1000).feed(bytes((first,)) + encode_length(len(body)) + body)
        PacketReader(1000).feed(body)
    except ProtocolError:
        pass


@settings(deadline=None)
@given(PACKETS, st.data())
def test_a_changed_byte_raises_nothing_else(packet: Packet, data: st.DataObject) -> None:
    """Protects against damage deep inside a packet that was once valid."""
    raw = bytearray(encode(packet)[:200])
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        PacketReader(2**20).feed(bytes(raw))
