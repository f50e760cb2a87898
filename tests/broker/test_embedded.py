"""What only the embedded broker promises: refusals, bounds, back-pressure, deadlines, counters."""

from __future__ import annotations

import asyncio

import pytest
from link import ShapedLink
from wire import Wire, answer_of

from broker import Access, BrokerError, EmbeddedSettings, embedded_broker
from broker.codec import encode
from broker.packets import Connack, Connect, Pingreq, Puback, Publish, Subscribe, Will


@pytest.mark.parametrize(
    ("connect", "answer"),
    [
        ("10 0e 0006 4d5149736470 03 02 003c 0000", "20 02 00 01"),
        ("10 0c 0004 4d515454 06 02 003c 0000", "20 03 00 84"),
    ],
    ids=["MQTT 3.1", "MQTT 6"],
)
async def test_another_version_is_answered_at_once(connect: str, answer: str) -> None:
    """Protects a client that can fall back to another version: it is told, never met with silence."""
    async with embedded_broker() as broker:
        told = await answer_of(broker.port, bytes.fromhex(connect))
        assert told[:1] + told[2:4] == bytes.fromhex(answer)[:1] + bytes.fromhex(answer)[2:]


@pytest.mark.parametrize("data", [b"\x00", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"], ids=["zero", "HTTP", "TLS"])
async def test_another_protocol_is_known_by_its_first_byte(data: bytes) -> None:
    """Protects a user who took the wrong port or scheme from waiting for a timeout."""
    async with embedded_broker() as broker:
        assert await answer_of(broker.port, data, patience=1) == b""


async def test_a_wrong_password_does_not_disturb_its_victim() -> None:
    """Protects sessions: nothing of the victim's is touched before the password was checked."""
    access = Access(authenticate=lambda client_id, username, password: password == b"right")
    login = {"username": "edge", "clean_session": False}
    async with (
        embedded_broker(EmbeddedSettings(access=access)) as broker,
        Wire(broker.port, "edge", password=b"right", **login) as victim,
    ):
        await victim.subscribe(("t", 1))
        attempt = Connect("edge", username="edge", password=b"wrong", will=Will("t", b"forged"))
        assert await answer_of(broker.port, encode(attempt)) == encode(Connack(4))
        await victim.publish("t", b"still here")
        assert (await victim.receive()).payload == b"still here"
        assert broker.stats().ended == {"refused": 1}


async def test_access_rules_bind_publications_wills_and_subscriptions() -> None:
    """Protects other clients' topics: a denied publication is acknowledged, dropped and counted."""
    access = Access(
        may_publish=lambda client_id, topic: topic.startswith(f"{client_id}/"),
        may_subscribe=lambda client_id, topic_filter: topic_filter != "#",
    )
    async with embedded_broker(EmbeddedSettings(access=access)) as broker, Wire(broker.port, "dev") as device:
        assert await device.subscribe(("#", 1), ("+/x", 1), ("bad#", 1)) == (0x80, 1, 0x80)
        await device.send(Publish("edge/x", b"denied", 1, packet_id=9), Publish("dev/x", b"allowed"))
        assert await device.next() is not None
        assert (await device.receive()).payload == b"allowed"
        assert broker.stats().dropped == {"denied": 1}
        forged = Connect("other", will=Will("edge/state", b"offline"))
        assert await answer_of(broker.port, encode(forged)) == encode(Connack(5))


async def test_nobody_but_the_broker_publishes_its_statistics() -> None:
    """Protects $SYS from forgery, and shows that it is published, retained, under Mosquitto's names."""
    async with embedded_broker() as broker, Wire(broker.port, "dev") as device:
        await device.publish("$SYS/broker/uptime", b"forged", retain=True)
        await device.subscribe(("$SYS/#", 0))
        texts = {message.topic: bytes(message.payload) for message in [await device.receive() for _ in range(13)]}
    assert texts["$SYS/broker/uptime"].endswith(b" seconds")
    assert {"$SYS/broker/clients/connected", "$SYS/broker/publish/messages/dropped"} <= set(texts)


async def test_a_full_subscriber_slows_its_publisher_and_loses_nothing() -> None:
    """Protects QoS 1: PUBACKs stay out while the subscriber is full, its memory is bounded, and all arrives."""
    settings = EmbeddedSettings(max_queued_bytes=200_000, max_withheld_bytes=100_000, max_inflight_messages=4)
    messages = [Publish("t", b"%03d" % n + bytes(10_000), 1, packet_id=n) for n in range(1, 201)]
    async with embedded_broker(settings) as broker, Wire(broker.port, "slow") as slow, Wire(broker.port, "out") as out:
        await slow.subscribe(("t", 1))
        sending = asyncio.create_task(out.send(*messages))
        first = [await slow.expect(Publish) for _ in range(4)]
        acknowledged = 0
        while not await out.nothing_for(0.2):
            acknowledged += 1
        assert acknowledged < 40
        assert broker.stats().queued_bytes < 320_000
        await slow.send(*(Puback(message.packet_id) for message in first))
        rest = await slow.payloads(196)
        assert [bytes(m.payload[:3]) for m in first] + [p[:3] for p in rest] == [b"%03d" % n for n in range(1, 201)]
        await sending
        for _ in range(200 - acknowledged - 1):
            await out.next()
        assert broker.stats().dropped == {}


async def test_two_clients_full_of_each_other_do_not_deadlock() -> None:
    """Protects peers that both send and receive: their PUBACKs are read while their own are withheld."""
    settings = EmbeddedSettings(max_queued_bytes=50_000, max_inflight_messages=4)
    async with embedded_broker(settings) as broker, Wire(broker.port, "a") as a, Wire(broker.port, "b") as b:
        await a.subscribe(("to/a", 1))
        await b.subscribe(("to/b", 1))
        await a.send(*(Publish("to/b", bytes(10_000), 1, packet_id=n) for n in range(1, 21)))
        await b.send(*(Publish("to/a", bytes(10_000), 1, packet_id=n) for n in range(1, 21)))
        received = await asyncio.gather(*(collect(client, messages=20, acks=20) for client in (a, b)))
        assert received == [20, 20]


async def test_overlapping_subscriptions_bring_the_greatest_qos() -> None:
    """Protects a QoS 1 subscription from a wider one with QoS 0."""
    async with embedded_broker() as broker, Wire(broker.port, "edge") as edge:
        await edge.subscribe(("a/#", 0), ("a/+", 1), ("a/b", 0))
        async with Wire(broker.port, "out") as out:
            await out.publish("a/b", b"once")
        assert (await edge.receive()).qos == 1


async def collect(client: Wire, messages: int, acks: int) -> int:
    """Acknowledge until both counts are reached; how many messages came."""
    got = 0
    while got < messages or acks > 0:
        packet = await client.next()
        if isinstance(packet, Publish):
            got += 1
            await client.send(Puback(packet.packet_id))
        else:
            acks -= 1
    return got


async def test_a_stuck_subscriber_is_disconnected_and_frees_its_publishers() -> None:
    """Protects everybody from one client that takes nothing: its session waits, the publisher goes on."""
    settings = EmbeddedSettings(max_queued_bytes=50_000, drain_deadline=0.6)
    async with (
        embedded_broker(settings) as broker,
        Wire(broker.port, "stuck", clean_session=False) as stuck,
        Wire(broker.port, "out") as out,
    ):
        await stuck.subscribe(("t", 1))
        await out.send(*(Publish("t", bytes(10_000), 1, packet_id=n) for n in range(1, 11)))
        for _ in range(10):
            await out.next()
        assert await stuck.is_closed()
        assert broker.stats().ended == {"stuck": 1}
        async with Wire(broker.port, "stuck", clean_session=False) as back:
            assert len(await back.payloads(10)) == 10


async def test_a_slow_link_slows_its_publisher_and_fills_no_memory() -> None:
    """Protects the broker between a fast sender and a slow receiver: 2 MB over 20 Mbit/s, 200 KB of room."""
    settings = EmbeddedSettings(max_queued_bytes=200_000, max_inflight_messages=8)
    async with (
        embedded_broker(settings) as broker,
        ShapedLink(broker.port, rate_bit_s=20e6) as link,
        Wire(link.port, "far", kernel_bytes=16_384) as far,
        Wire(broker.port, "near") as near,
    ):
        await far.subscribe(("t", 1))
        receiving = asyncio.create_task(far.payloads(200))
        most = 0
        for n in range(200):
            await near.publish("t", b"%03d" % n + bytes(10_000))
            most = max(most, broker.stats().queued_bytes)
        assert 150_000 < most < 230_000
        assert [payload[:3] for payload in await receiving] == [b"%03d" % n for n in range(200)]


async def test_qos_0_for_a_slow_subscriber_is_dropped_and_counted() -> None:
    """Protects the broker's memory and the publisher's pace: QoS 0 never waits for anybody."""
    settings = EmbeddedSettings(max_queued_bytes=100_000)
    async with (
        embedded_broker(settings) as broker,
        Wire(broker.port, "slow", kernel_bytes=4096) as slow,
        Wire(broker.port, "out") as out,
    ):
        await slow.subscribe(("t", 0))
        slow.stop_reading()
        for _ in range(1000):
            await out.send(Publish("t", bytes(20_000)))
        await out.publish("end")
        stats = broker.stats()
        assert stats.dropped["slow_subscriber"] > 100
        assert stats.queued_bytes < 150_000


async def test_a_silent_connection_is_closed_at_the_deadline() -> None:
    """Protects the connection limit from sockets that never say who they are, even drop by drop."""
    async with embedded_broker(EmbeddedSettings(connect_deadline=0.5)) as broker:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        writer.write(encode(Connect("dev"))[:3])
        async with asyncio.timeout(3):
            assert await reader.read() == b""
        writer.close()
        assert broker.stats().ended == {"connect_deadline": 1}


async def test_keepalive_0_is_never_too_silent() -> None:
    """Protects clients that asked not to be watched."""
    async with (
        embedded_broker() as broker,
        Wire(broker.port, "watched", keepalive=1),
        Wire(broker.port, "calm") as calm,
    ):
        await asyncio.sleep(2.2)
        assert broker.stats().ended == {"keepalive": 1}
        await calm.publish("still", b"here")


async def test_a_greatest_qos_is_kept() -> None:
    """Protects a limit that was set: subscriptions go down to it, a publication above it closes."""
    settings = EmbeddedSettings(max_qos=1)
    async with embedded_broker(settings) as broker, Wire(broker.port, "dev") as device:
        assert await device.subscribe(("t", 2)) == (1,)
        await device.send(Publish("t", b"x", 2, packet_id=1))
        assert await device.is_closed()
        assert broker.stats().ended == {"protocol": 1}


async def test_client_ids_are_assigned_or_refused() -> None:
    """Protects sessions: a nameless client gets a name, but not a session that nobody could find again."""
    async with embedded_broker() as broker:
        async with Wire(broker.port), Wire(broker.port):
            assert broker.stats().connections == 2
        assert await answer_of(broker.port, encode(Connect("", clean_session=False))) == encode(Connack(2))
        assert await answer_of(broker.port, encode(Connect("x" * 300))) == encode(Connack(2))


async def test_too_many_connections_are_refused_but_not_a_reconnect() -> None:
    """Protects the process, and lets a known client take its own place when the house is full."""
    settings = EmbeddedSettings(max_connections=2)
    async with embedded_broker(settings) as broker, Wire(broker.port, "a"), Wire(broker.port, "b") as old:
        assert await answer_of(broker.port, encode(Connect("c"))) == encode(Connack(3))
        async with Wire(broker.port, "b"):
            assert await old.is_closed()


async def test_sessions_are_bounded_and_expire() -> None:
    """Protects memory from clients that never come back: the one longest away makes room."""
    async with embedded_broker(EmbeddedSettings(max_sessions=2)) as broker:
        for name in ("oldest", "older", "new"):
            async with Wire(broker.port, name, clean_session=False):
                pass
            await asyncio.sleep(0.02)
        assert broker.stats().sessions == 2
        for name, present in (("older", True), ("oldest", False)):
            async with Wire(broker.port, name, clean_session=False) as client:
                assert client.connack.session_present is present
    async with embedded_broker(EmbeddedSettings(session_expiry=0.1)) as broker:
        async with Wire(broker.port, "brief", clean_session=False):
            pass
        await asyncio.sleep(1.2)
        assert broker.stats().sessions == 0


async def test_all_absent_clients_together_are_bounded() -> None:
    """Protects memory: many sessions, each within its own bound, must not add up without end."""
    async with embedded_broker(EmbeddedSettings(max_offline_bytes=50_000)) as broker:
        for name in ("x", "y"):
            async with Wire(broker.port, name, clean_session=False) as client:
                await client.subscribe((name, 1))
        async with Wire(broker.port, "out") as out:
            for n in range(20):
                await out.publish("xy"[n % 2], bytes(5000))
        stats = broker.stats()
        assert stats.queued_bytes <= 50_000
        assert stats.dropped["away"] >= 10
        for name in ("x", "y"):
            async with Wire(broker.port, name, clean_session=True):
                pass
        assert broker.stats().queued_bytes == 0


async def test_what_is_not_retained_for_want_of_room_is_delivered() -> None:
    """Protects memory from retained messages without end; the loss is counted."""
    settings = EmbeddedSettings(max_retained_messages=3, sys_interval=0)
    async with embedded_broker(settings) as broker, Wire(broker.port, "dev") as device, Wire(broker.port, "in") as live:
        await live.subscribe(("s/#", 1))
        for n in range(5):
            await device.publish(f"s/{n}", b"x", retain=True)
        assert len(await live.payloads(5)) == 5
        assert broker.stats().retained == 3
        assert broker.stats().dropped == {"retained_full": 2}


async def test_a_client_that_never_reads_its_answers_is_closed() -> None:
    """Protects memory from answers that pile up: pings, subscriptions."""
    async with (
        embedded_broker(EmbeddedSettings(max_packet_size=1000)) as broker,
        Wire(broker.port, "greedy", kernel_bytes=4096) as greedy,
    ):
        greedy.stop_reading()
        with pytest.raises(ConnectionError):
            await greedy.send_bytes(encode(Pingreq()) * 20_000_000)
        assert broker.stats().ended == {"not_reading": 1}


async def test_subscriptions_are_bounded() -> None:
    """Protects the tree from a client that subscribes to everything it can think of."""
    async with embedded_broker(EmbeddedSettings(max_subscriptions=2)) as broker, Wire(broker.port, "dev") as device:
        await device.send(Subscribe(1, (("a", 1), ("b", 0), ("c", 1), ("a", 0))))
        assert (await device.next()).codes == (1, 0, 0x80, 0)


async def test_a_port_in_use_is_a_clear_error() -> None:
    """Protects the first minute with the product: what is wrong and what to do."""
    async with embedded_broker() as broker:
        with pytest.raises(BrokerError, match=f"port {broker.port} on 127.0.0.1 is in use: stop what listens"):
            async with embedded_broker(EmbeddedSettings(port=broker.port)):
                pass


async def test_stopping_closes_connections_without_wills_and_frees_the_port() -> None:
    """Protects restarts: every client is hung up on, and the same port can be used at once."""
    async with embedded_broker() as broker:
        client = Wire(broker.port, "dev", will=Will("t", b"offline"))
        await client.__aenter__()
    assert await client.is_closed()
    await client.__aexit__()
    async with embedded_broker(EmbeddedSettings(port=broker.port)) as again, Wire(again.port, "dev") as device:
        await device.publish("t", b"x")
        assert broker.url == f"mqtt://127.0.0.1:{again.port}"
