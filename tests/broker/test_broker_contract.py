"""What the rest of the system may expect of any broker: the same tests for the embedded one and for Mosquitto."""

from __future__ import annotations

import asyncio

import aiomqtt
import pytest
from wire import RunBroker, Wire, answer_of

from broker.codec import encode
from broker.packets import Connect, Disconnect, Puback, Publish, Subscribe, Unsuback, Unsubscribe, Will

WILL = Will("state/dev", b"offline", 1, True)


def v311(port: int, name: str) -> aiomqtt.Client:
    return aiomqtt.Client("127.0.0.1", port, identifier=name, protocol=aiomqtt.ProtocolVersion.V311)


@pytest.mark.parametrize("qos", [0, 1])
async def test_payloads_of_all_sizes_arrive_whole(run_broker: RunBroker, qos: int) -> None:
    """Protects the data path, through an independent client: nothing is cut, merged or reordered."""
    payloads = [bytes([n % 256 for n in range(size)]) for size in (0, 1, 125, 14_000, 65_536, 100_000, 1_000_000)]
    async with run_broker() as broker, v311(broker.port, "in") as inward, v311(broker.port, "out") as outward:
        await inward.subscribe("data/#", qos=qos)
        for payload in payloads:
            await outward.publish("data/x", payload, qos=qos)
        async with asyncio.timeout(10):
            received = [(await anext(inward.messages)) for _ in payloads]
    assert [message.payload for message in received] == payloads
    assert {(message.qos, message.retain) for message in received} == {(qos, False)}


async def test_retained_messages_reach_late_subscribers(run_broker: RunBroker) -> None:
    """Protects all state that is published once: found by wildcard, flagged, replaced, cleared."""
    async with run_broker() as broker, Wire(broker.port, "out") as out, Wire(broker.port, "in") as late:
        for topic, payload in (("s/a", b"old"), ("s/a", b"new"), ("s/b", b"gone"), ("s/b", b""), ("x/c", b"x")):
            await out.publish(topic, payload, retain=True)
        assert await late.subscribe(("s/+", 1)) == (1,)
        message = await late.receive()
        assert (message.topic, message.payload, message.retain, message.qos) == ("s/a", b"new", True, 1)
        await out.publish("s/a", b"live", retain=True)
        message = await late.receive()
        assert (message.payload, message.retain) == (b"live", False)
        assert await late.nothing_for(0.1)


async def test_a_will_follows_an_abrupt_end(run_broker: RunBroker) -> None:
    """Protects the knowledge of who is there: the will comes live, and stays retained."""
    async with run_broker() as broker, Wire(broker.port, "edge") as edge:
        await edge.subscribe(("state/+", 1))
        async with Wire(broker.port, "dev", will=WILL) as device:
            device.vanish()
            assert (await edge.receive()).payload == b"offline"
        async with Wire(broker.port, "late") as late:
            await late.subscribe(("state/dev", 1))
            assert (await late.receive()).retain


async def test_a_will_follows_silence(run_broker: RunBroker) -> None:
    """Protects the same against a device that lost its power: keepalive times 1.5, then the will."""
    async with run_broker() as broker, Wire(broker.port, "edge") as edge:
        await edge.subscribe(("state/+", 1))
        async with Wire(broker.port, "dev", will=WILL, keepalive=1) as device:
            assert await edge.nothing_for(1.2)
            assert (await edge.receive()).payload == b"offline"
            assert await device.is_closed()


async def test_no_will_follows_disconnect(run_broker: RunBroker) -> None:
    """Protects a clean stop from looking like a crash."""
    async with run_broker() as broker, Wire(broker.port, "edge") as edge:
        await edge.subscribe(("state/+", 1))
        async with Wire(broker.port, "dev", will=WILL) as device:
            await device.send(Disconnect())
            assert await device.is_closed()
        assert await edge.nothing_for(0.3)


async def test_takeover_closes_the_old_connection(run_broker: RunBroker) -> None:
    """Protects against two connections of one client; the old one's will is published, as the standard asks."""
    async with run_broker() as broker, Wire(broker.port, "edge") as edge, Wire(broker.port, "dev", will=WILL) as old:
        await edge.subscribe(("state/+", 1))
        async with Wire(broker.port, "dev") as new:
            assert await old.is_closed()
            assert (await edge.receive()).payload == b"offline"
            await new.publish("state/dev", b"online")
            assert (await edge.receive()).payload == b"online"


async def test_a_persistent_session_keeps_what_came_meanwhile(run_broker: RunBroker) -> None:
    """Protects QoS 1 while a subscriber restarts: order kept, QoS 0 not kept, subscriptions remembered."""
    async with run_broker() as broker, Wire(broker.port, "out") as out:
        async with Wire(broker.port, "edge", clean_session=False) as edge:
            assert not edge.connack.session_present
            await edge.subscribe(("q/#", 1))
        await out.publish("q/zero", b"not kept", qos=0)
        for n in range(50):
            await out.publish("q/x", b"%d" % n)
        async with Wire(broker.port, "edge", clean_session=False) as edge:
            assert edge.connack.session_present
            assert [p for p in await edge.payloads(50) if p != b"not kept"] == [b"%d" % n for n in range(50)]


async def test_what_was_not_acknowledged_comes_again(run_broker: RunBroker) -> None:
    """Protects QoS 1 over a crash of the subscriber: the same ids, in order, marked DUP; the rest not again."""
    async with run_broker() as broker, Wire(broker.port, "out") as out:
        async with Wire(broker.port, "edge", clean_session=False) as edge:
            await edge.subscribe(("q", 1))
            for n in range(5):
                await out.publish("q", b"%d" % n)
            seen = [await edge.expect(Publish) for _ in range(5)]
            await edge.send(Puback(seen[0].packet_id), Puback(seen[2].packet_id))
            await asyncio.sleep(0.1)
            edge.vanish()
        async with Wire(broker.port, "edge", clean_session=False) as edge:
            again = [await edge.receive() for _ in range(3)]
            assert [(m.payload, m.dup, m.packet_id) for m in again] == [
                (seen[n].payload, True, seen[n].packet_id) for n in (1, 3, 4)
            ]
            assert await edge.nothing_for(0.1)


async def test_a_clean_session_starts_from_nothing(run_broker: RunBroker) -> None:
    """Protects a client that asked to forget: no subscriptions, no messages, no session present."""
    async with run_broker() as broker, Wire(broker.port, "out") as out:
        async with Wire(broker.port, "edge", clean_session=False) as edge:
            await edge.subscribe(("q", 1))
        await out.publish("q", b"waiting")
        for clean in (True, False):
            async with Wire(broker.port, "edge", clean_session=clean) as edge:
                assert not edge.connack.session_present
                await out.publish("q", b"live")
                assert await edge.nothing_for(0.1)


async def test_overlapping_subscriptions_bring_one_copy(run_broker: RunBroker) -> None:
    """Protects receivers from doubles. (With mixed QoS, Mosquitto 2.0.11 delivers the first it finds.)"""
    async with run_broker() as broker, Wire(broker.port, "edge") as edge, Wire(broker.port, "out") as out:
        await edge.subscribe(("a/#", 1), ("a/+", 1), ("a/b", 1))
        await out.publish("a/b", b"once")
        assert (await edge.receive()).qos == 1
        assert await edge.nothing_for(0.1)


async def test_wildcards_match_what_they_should(run_broker: RunBroker) -> None:
    """Protects routing: `+` one level, `#` the parent and all below, neither matches a leading `$`."""
    topics = ("a", "a/b", "a/b/c", "/a", "b/a", "$app/a")
    expected = {"a/#": ["a", "a/b", "a/b/c"], "+/+": ["a/b", "/a", "b/a"], "+": ["a"], "#": list(topics[:-1])}
    async with run_broker() as broker, Wire(broker.port, "out") as out:
        for topic_filter, matching in expected.items():
            async with Wire(broker.port, "in") as reader:
                await reader.subscribe((topic_filter, 0))
                for topic in topics:
                    await out.publish(topic, b"x", qos=0)
                assert [(await reader.receive()).topic for _ in matching] == matching
                assert await reader.nothing_for(0.05)


async def test_unsubscribing_ends_delivery(run_broker: RunBroker) -> None:
    """Protects a client from what it no longer wants, and the other filters that it still has."""
    async with run_broker() as broker, Wire(broker.port, "edge") as edge:
        await edge.subscribe(("a", 1), ("b", 1))
        await edge.send(Unsubscribe(9, ("a", "never")))
        assert await edge.expect(Unsuback) == Unsuback(9)
        async with Wire(broker.port, "out") as out:
            await out.publish("a", b"unwanted")
            await out.publish("b", b"wanted")
        assert (await edge.receive()).topic == "b"


async def test_delivery_qos_is_the_lesser_of_both(run_broker: RunBroker) -> None:
    """Protects QoS 0 publications from being raised to QoS 1, and QoS 0 subscribers from having to acknowledge."""
    async with run_broker() as broker, Wire(broker.port, "one") as one, Wire(broker.port, "zero") as zero:
        await one.subscribe(("t", 1))
        await zero.subscribe(("t", 0))
        async with Wire(broker.port, "out") as out:
            await out.publish("t", b"zero", qos=0)
            await out.publish("t", b"one", qos=1)
        assert [(await one.receive()).qos for _ in range(2)] == [0, 1]
        assert [(await zero.receive()).qos for _ in range(2)] == [0, 0]


async def test_an_oversize_packet_closes_its_connection_only(run_broker: RunBroker) -> None:
    """Protects the others' memory: the limit counts the whole packet, and what fits exactly passes."""
    limit = 20_000
    fitting = Publish("t", bytes(limit - 4 - 3 - 2), 1, packet_id=1)
    async with run_broker(max_packet_size=limit) as broker, Wire(broker.port, "other") as other:
        await other.subscribe(("t", 1))
        async with Wire(broker.port, "big") as big:
            assert len(encode(fitting)) == limit
            await big.send(fitting)
            assert await big.expect(Puback) == Puback(1)
            await big.send(Publish("t", bytes(limit), 1, packet_id=2))
            assert await big.is_closed()
        assert len((await other.receive()).payload) == limit - 9
        assert await other.nothing_for(0.1)


async def test_fifty_clients_lose_nothing(run_broker: RunBroker) -> None:
    """Protects a laboratory's worth of devices: each client's messages arrive, once and in order."""

    async def device(port: int, name: str) -> None:
        async with Wire(port, name) as wire:
            for n in range(20):
                await wire.publish(f"up/{name}", b"%d" % n + bytes(1000))

    async with run_broker() as broker, Wire(broker.port, "edge") as edge:
        await edge.subscribe(("up/#", 1))
        async with asyncio.TaskGroup() as group:
            for n in range(50):
                group.create_task(device(broker.port, f"dev-{n}"))
            seen: dict[str, list[bytes]] = {}
            for _ in range(1000):
                message = await edge.receive()
                seen.setdefault(message.topic, []).append(bytes(message.payload[:-1000]))
    assert len(seen) == 50
    assert all(numbers == [b"%d" % n for n in range(20)] for numbers in seen.values())


async def test_a_message_cut_off_in_the_middle_is_not_delivered(run_broker: RunBroker) -> None:
    """Protects receivers from half a payload when a sender dies while it sends."""
    async with run_broker() as broker, Wire(broker.port, "edge") as edge:
        await edge.subscribe(("t", 1))
        async with Wire(broker.port, "dev", will=Will("t", b"offline")) as device:
            await device.send_bytes(encode(Publish("t", bytes(200_000), 1, packet_id=1))[:150_000])
            device.vanish()
            assert (await edge.receive()).payload == b"offline"


@pytest.mark.parametrize("data", [encode(Subscribe(1, (("a", 0),))), b"\x10\x00"], ids=["SUBSCRIBE", "empty CONNECT"])
async def test_what_is_not_mqtt_is_hung_up_on(run_broker: RunBroker, data: bytes) -> None:
    """Protects the listener: strangers' bytes end their own connection and no other."""
    async with run_broker() as broker, Wire(broker.port, "other") as other:
        assert await answer_of(broker.port, data) == b""
        await other.publish("still", b"here")


async def test_a_second_connect_closes_the_connection(run_broker: RunBroker) -> None:
    """Protects sessions from a client that changes its mind about who it is."""
    async with run_broker() as broker, Wire(broker.port, "dev") as device:
        await device.send(Connect("other"))
        assert await device.is_closed()
