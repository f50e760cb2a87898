"""The router without a socket or a clock of its own: expiry, wills, shared subscriptions, access at delivery."""

from __future__ import annotations

from broker import Access, EmbeddedSettings
from broker.framing import PacketReader
from broker.message import Message, Outlet
from broker.packets import V5, Publish, Pubrel, Request, Will
from broker.properties import Properties
from broker.reasons import Reason
from broker.registry import Arrival
from broker.router import Router
from broker.session import Identity
from broker.stats import EndReason


class Here:
    """A connection that is told much and does nothing; `leave` is its end."""

    def __init__(self, router: Router, name: str, *, expiry: float = 0.0, clean: bool = True, now: float = 0.0) -> None:
        self.router = router
        arrival = Arrival(Identity(name), clean, expiry, self, Outlet(V5), 0xFFFF)
        self.session, self.present = router.registry.open(arrival, now)
        self.will: Will | None = None
        self.ended: list[EndReason] = []
        self.now = now

    def wake(self) -> None:
        pass

    def close(self, reason: EndReason) -> None:
        self.ended.append(reason)
        self.leave(self.now)

    def leave(self, now: float) -> None:
        self.router.leave(self.session, self.will, now)

    def subscribe(self, topic_filter: str, qos: int = 1, *, now: float = 0.0, **options: int) -> int:
        return self.router.subscribe(self.session, Request(topic_filter, qos, **options), 0, now)

    def got(self, now: float = 0.0) -> list[Publish]:
        packets = PacketReader(2**20, V5).feed(b"".join(self.session.take(2**20, now)))
        return [packet for packet in packets if isinstance(packet, Publish)]

    def payloads(self, now: float = 0.0) -> list[bytes]:
        return [bytes(message.payload) for message in self.got(now)]


def router_of(**settings: object) -> Router:
    return Router(EmbeddedSettings(sys_interval=0, **settings), 0.0)


def say(router: Router, topic: str, *texts: str, qos: int = 1, retain: bool = False, expires_at: float = 1e9) -> None:
    for text in texts:
        router.publish(Message(topic, text.encode(), expires_at=expires_at), qos, retain)


def test_a_session_outlives_its_connection_as_long_as_it_asked() -> None:
    """Protects both sides of session expiry: kept until then, gone after, and never longer than the broker allows."""
    router = router_of(session_expiry=100.0)
    for name, expiry in (("brief", 5.0), ("long", 1e9), ("none", 0.0)):
        Here(router, name, expiry=expiry).leave(now=0.0)
    for now, left in ((4.0, {"brief", "long"}), (6.0, {"long"}), (101.0, set())):
        router.expire(now)
        assert {session.client_id for session in router.registry} == left


def test_a_will_waits_for_its_delay_or_for_the_end_of_the_session() -> None:
    """Protects against flapping: the will comes at the delay or at the session's end, whichever is first, once."""
    router = router_of()
    edge = Here(router, "edge")
    edge.subscribe("state/#")
    for name, delay, expiry in (("early", 3, 10.0), ("late", 10, 5.0), ("never", 5, 0.0)):
        device = Here(router, name, expiry=expiry)
        device.will = Will(f"state/{name}", b"gone", 1, properties=Properties(will_delay=delay))
        device.leave(now=0.0)
    seen = [
        [message.topic for message in edge.got(now)] for now in (0.0, 2.0, 3.0, 5.1, 20.0) if not router.expire(now)
    ]
    assert seen == [["state/never"], [], ["state/early"], ["state/late"], []]


def test_a_will_is_cancelled_by_a_return_and_sent_by_a_clean_start() -> None:
    """Protects who came back in time from being called gone, and watchers of a session that was thrown away."""
    for clean, expected in ((False, []), (True, [b"gone"])):
        router = router_of()
        edge = Here(router, "edge")
        edge.subscribe("state")
        device = Here(router, "dev", expiry=60.0)
        device.will = Will("state", b"gone", 1, properties=Properties(will_delay=30))
        device.leave(now=0.0)
        assert Here(router, "dev", expiry=60.0, clean=clean, now=1.0).present is not clean
        router.expire(50.0)
        assert edge.payloads(50.0) == expected


def test_messages_expire_where_they_wait() -> None:
    """Protects readers from stale news: away, in a queue and retained, each counted; the rest tells its age."""
    router = router_of(max_inflight_messages=1)
    reader = Here(router, "in", expiry=1000.0)
    reader.subscribe("t")
    say(router, "t", "first", expires_at=100.0)
    assert reader.got(now=0.0)[0].properties.message_expiry == 100
    say(router, "t", "stale", expires_at=10.0)
    say(router, "t", "fresh", retain=True, expires_at=60.0)
    reader.session.acknowledge(1)
    (fresh,) = reader.got(now=20.5)
    assert (fresh.payload, fresh.properties.message_expiry) == (b"fresh", 40)
    reader.leave(now=21.0)
    say(router, "t", "away", expires_at=30.0)
    router.expire(31.0)
    assert reader.session.queue.messages == 1  # what is in flight stays
    assert Here(router, "late", now=31.0).subscribe("t", now=31.0) == 1
    router.expire(61.0)
    assert router.retained.messages == 0
    assert router.counters.dropped["expired"] == 2


def members(router: Router, *names: str, **options: float) -> list[Here]:
    found = [Here(router, name, **options) for name in names]
    for member in found:
        assert member.subscribe("$share/g/t") == 1
    return found


def test_a_group_takes_turns() -> None:
    """Protects `$share`: each message goes to one member of a group, and beside it to every plain subscriber."""
    router = router_of()
    one, two = members(router, "one", "two")
    plain = Here(router, "plain")
    plain.subscribe("t")
    say(router, "t", "a", "b", "c", "d")
    assert (one.payloads(), two.payloads()) == ([b"a", b"c"], [b"b", b"d"])
    assert len(plain.got()) == 4


def test_a_group_prefers_connected_members_with_room() -> None:
    """Protects work from waiting at a member that is away or full while another could do it."""
    router = router_of(max_queued_messages=1)
    away, full, ready = members(router, "away", "full", "ready", expiry=60.0)
    away.leave(now=0.0)
    full.subscribe("fill")
    say(router, "fill", "x", "y")
    say(router, "t", "a", "b")
    assert ready.payloads() == [b"a", b"b"]
    for member in (full, ready):
        member.leave(now=0.0)
    say(router, "t", "c")
    assert sum(member.session.queue.messages for member in (away, full, ready)) == 5


def test_what_a_member_left_goes_to_another() -> None:
    """Protects QoS 1 over a crash of one worker: in flight or waiting, it is done by the next; QoS 2 stays begun."""
    router = router_of(max_inflight_messages=2)
    (one,) = members(router, "one", expiry=60.0)
    one.subscribe("$share/g/t", 2)
    say(router, "t", "twice", qos=2)
    say(router, "t", "flying", "waiting")
    assert one.payloads() == [b"twice", b"flying"]
    (two,) = members(router, "two")
    one.leave(now=0.0)
    assert two.payloads() == [b"flying", b"waiting"]
    assert one.session.queue.messages == 1
    (three,) = members(router, "three")
    two.leave(now=0.0)  # its session ends with it
    assert three.payloads() == [b"flying", b"waiting"]
    assert router.counters.dropped["away"] == 0


def test_leaving_a_group_passes_on_what_was_not_begun() -> None:
    """Protects messages of a member that unsubscribes; what it has in its hands it may finish."""
    router = router_of(max_inflight_messages=1)
    (one,) = members(router, "one")
    say(router, "t", "begun", "waiting")
    assert one.payloads() == [b"begun"]
    (two,) = members(router, "two")
    assert router.unsubscribe(one.session, "$share/g/t") == Reason.SUCCESS
    assert two.payloads() == [b"waiting"]
    assert one.session.queue.messages == 1
    assert router.unsubscribe(two.session, "$share/g/t") == Reason.SUCCESS
    say(router, "t", "nobody's")
    assert (one.got(), two.session.queue.messages) == ([], 1)


def test_a_group_gets_no_retained_messages() -> None:
    """Protects workers from old news (MQTT-4.8.2): a shared subscription brings only what is published from now on."""
    router = router_of()
    say(router, "t", "old", retain=True)
    (one,) = members(router, "one")
    assert one.got() == []


def test_retained_messages_asked_for_again_and_again_are_bounded() -> None:
    """Protects memory from one filter repeated: the first time brings all, the next only while there is room."""
    router = router_of(max_queued_messages=10)
    for n in range(20):
        say(router, f"s/{n}", "x", retain=True)
    reader = Here(router, "in")
    for _ in range(5):
        assert reader.subscribe("#") == 1
    assert reader.session.queue.messages == 20
    assert router.counters.dropped["slow_subscriber"] == 80


def test_a_wildcard_brings_only_what_its_client_may_read() -> None:
    """Protects forbidden topics behind a granted `#`: live, retained, and in a group."""
    access = Access(may_read=lambda client, topic: not topic.startswith("secret") or client == "boss")
    router = router_of(access=access)
    say(router, "secret/old", "x", retain=True)
    boss, spy = Here(router, "boss"), Here(router, "spy")
    for client in (spy, boss):
        client.subscribe("#")
        client.subscribe("$share/g/secret/#")
    say(router, "secret/new", "y")
    say(router, "open", "z")
    assert [message.topic for message in spy.got()] == ["open"]
    assert sorted(message.topic for message in boss.got()) == ["open", "secret/new", "secret/new", "secret/old"]


def test_somebody_elses_session_is_not_given_away() -> None:
    """Protects a user's session from another user who knows its client id, even with a right password."""
    router = router_of()
    mine = Arrival(Identity("dev", "me"), False, 60.0, Here(router, "x"), Outlet(V5), 10)
    router.registry.open(mine, 0.0)
    for username, reason in (("me", Reason.SUCCESS), ("you", Reason.BAD_CLIENT_ID), (None, Reason.BAD_CLIENT_ID)):
        assert router.judge(Identity("dev", username), None) == reason


def test_qos_2_goes_on_where_it_stopped() -> None:
    """Protects exactly-once over a reconnect: before PUBREC the message comes again, after it only PUBREL."""
    router = router_of()
    reader = Here(router, "in", expiry=60.0)
    reader.subscribe("t", 2)
    say(router, "t", "a", "b", "refused", qos=2)
    assert [message.packet_id for message in reader.got()] == [1, 2, 3]
    assert reader.session.receive(2, refused=False)
    assert reader.session.receive(3, refused=True)
    assert not reader.session.receive(9, refused=False)
    before = reader.session.queue.size
    reader.leave(now=1.0)
    back = Here(router, "in", expiry=60.0, clean=False, now=2.0)
    again = PacketReader(2**20, V5).feed(b"".join(back.session.take(2**20, 2.0)))
    assert [type(packet) for packet in again] == [Publish, Pubrel]
    assert again[0].dup
    for packet_id in (1, 2):
        back.session.receive(packet_id, refused=False)
        back.session.complete(packet_id)
    assert (back.session.queue.size, back.session.queue.messages, before > 0) == (0, 0, True)


def test_a_client_that_wants_less_at_once_gets_less() -> None:
    """Protects Receive Maximum, also for what is sent again after a reconnect."""
    router = router_of()
    reader = Here(router, "in", expiry=60.0)
    reader.subscribe("t")
    say(router, "t", *"abcd")
    assert len(reader.got()) == 4
    reader.leave(now=0.0)
    arrival = Arrival(Identity("in"), False, 60.0, reader, Outlet(V5), 2)
    router.registry.open(arrival, 1.0)
    assert [(m.packet_id, m.dup) for m in reader.got()] == [(1, True), (2, True)]
    reader.session.acknowledge(1)
    assert [(m.packet_id, m.dup) for m in reader.got()] == [(3, True)]
