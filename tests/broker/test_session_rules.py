"""A session's promises, without a socket: order, window, repetition, bounds, and who waits for whom."""

from __future__ import annotations

from broker.backpressure import DrainWatch, Hold, WithheldAcks
from broker.framing import PacketReader
from broker.message import MESSAGE_OVERHEAD, Delivery, Message
from broker.packets import Publish
from broker.session import Identity, Session
from broker.settings import EmbeddedSettings
from broker.stats import EndReason


class Recorder:
    """A connection that counts what it is told."""

    def __init__(self) -> None:
        self.wakes = self.let_go_of = 0

    def wake(self) -> None:
        self.wakes += 1

    def close(self, reason: EndReason) -> None:
        raise AssertionError(reason)

    def let_go(self) -> None:
        self.let_go_of += 1


def session_of(**settings: int) -> Session:
    session = Session(Identity("client"), 60.0, EmbeddedSettings(**settings))
    session.attach(Recorder())
    return session


def delivery(text: str, qos: int = 1) -> Delivery:
    return Delivery(Message("t", text.encode()), qos)


def taken(session: Session) -> list[tuple[bytes, int, bool]]:
    packets = PacketReader(2**20).feed(b"".join(session.take(2**20, now=0.0)))
    return [(p.payload, p.packet_id, p.dup) for p in packets if isinstance(p, Publish)]


def test_the_window_holds_back_qos_1_only() -> None:
    """Protects a slow subscriber from more than it can acknowledge, and QoS 0 from waiting behind it."""
    session = session_of(max_inflight_messages=2)
    for text in "abc":
        session.offer(delivery(text))
    session.offer(delivery("now", qos=0))
    assert taken(session) == [(b"now", 0, False), (b"a", 1, False), (b"b", 2, False)]
    assert not session.queue.ready
    session.acknowledge(1)
    assert taken(session) == [(b"c", 3, False)]


def test_what_was_in_flight_comes_first_and_marked() -> None:
    """Protects QoS 1 over a reconnect: same ids, same order, DUP, then what waited."""
    session = session_of(max_inflight_messages=3)
    for text in "abcd":
        session.offer(delivery(text))
    taken(session)
    session.acknowledge(2)
    session.detach(now=0.0)
    session.attach(Recorder())
    assert taken(session) == [(b"a", 1, True), (b"c", 3, True), (b"d", 4, False)]


def test_packet_ids_skip_those_in_flight() -> None:
    """Protects a message that is never acknowledged from losing its id after 65,535 others."""
    session = session_of(max_inflight_messages=2)
    session.offer(delivery("stays"))
    taken(session)
    session.queue._last_id = 0xFFFF
    session.offer(delivery("next"))
    assert taken(session) == [(b"next", 2, False)]


def test_an_absent_client_loses_the_oldest() -> None:
    """Protects memory: nobody waits for a client that is away, and its drops are counted."""
    session = session_of(max_queued_messages=2)
    session.detach(now=0.0)
    assert [session.store(delivery(text)) for text in "abcd"] == [0, 0, 1, 1]
    session.attach(Recorder())
    assert [payload for payload, _, _ in taken(session)] == [b"c", b"d"]


def test_a_full_session_refuses_qos_0_and_takes_qos_1() -> None:
    """Protects a connected subscriber's QoS 1 messages from ever being dropped."""
    session = session_of(max_queued_bytes=2 * MESSAGE_OVERHEAD)
    assert [session.offer(delivery("x")) for _ in range(3)] == [True] * 3
    assert session.full
    assert not session.offer(delivery("x", qos=0))
    assert session.offer(delivery("x", qos=0), force=True)


def test_sizes_return_to_zero() -> None:
    """Protects the bounds from drifting, over every way that a message can leave."""
    session = session_of()
    for qos in (0, 1, 1, 0, 1):
        session.offer(delivery("payload", qos))
    taken(session)
    session.offer(delivery("passing", qos=0))
    session.detach(now=0.0)
    for packet_id in (3, 1, 2, 2, 99):
        session.acknowledge(packet_id)
    session.store(delivery("stored"))
    assert session.queue.drop_oldest()
    assert (session.queue.size, session.queue.messages) == (0, 0)


def test_a_hold_ends_when_every_full_session_has_room_or_is_gone() -> None:
    """Protects the publisher from both an early PUBACK and one that never comes."""
    publisher = Recorder()
    first, second = (session_of(max_queued_messages=1) for _ in range(2))
    hold = Hold(publisher, b"answer", size=10, waiting_for=2)
    for session in (first, second):
        session.offer(delivery("a"))
        session.offer(delivery("b"))
        session.holds.append(hold)
        taken(session)
    first.acknowledge(1)
    assert publisher.let_go_of == 0
    second.detach(now=0.0)
    assert publisher.let_go_of == 1


def test_withheld_acks_go_in_order_and_bound_the_reading() -> None:
    """Protects MQTT-4.6.0-2: a free PUBACK waits behind one that is held."""
    acks = WithheldAcks(max_messages=3, max_bytes=100)
    held, free = Hold(Recorder(), b"1", 60, 1), Hold(Recorder(), b"2", 60, 0)
    acks.add(held)
    assert not acks.full
    acks.add(free)
    assert acks.full
    assert list(acks.free()) == []
    held.let_go()
    assert list(acks.free()) == [b"1", b"2"]
    assert not len(acks)
    assert not acks.full


def test_only_a_subscriber_without_any_progress_is_stuck() -> None:
    """Protects slow links: a trickle of bytes or acknowledgements is enough to stay."""
    watch = DrainWatch(deadline=10)
    assert not watch.is_stuck((0, 0), now=0)
    assert not watch.is_stuck((0, 1), now=9)
    assert not watch.is_stuck((0, 1), now=18)
    watch.clear()
    assert not watch.is_stuck((0, 1), now=20)
    assert watch.is_stuck((0, 1), now=30.5)
