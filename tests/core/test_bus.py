"""The bus on real brokers: sessions, presence, refusals, bounded inboxes, broker loss."""

import asyncio
import socket

import pytest
from link import ShapedLink

from megace2_iot.bus import BrokerSettings, BusError, Presence, Refused, connect


def settings(broker: object, **more: object) -> BrokerSettings:
    return BrokerSettings(url=broker.url, **more)  # type: ignore[attr-defined]


def presence(topic: str = "lab/state") -> Presence:
    return Presence(topic=topic, payload=lambda state, session: f"{state} {session}".encode())


async def test_messages_arrive_once_and_in_order(run_broker):
    """The plain path, on each broker, in the version of MQTT that it speaks."""
    async with run_broker() as broker, connect(settings(broker), "a") as a, connect(settings(broker), "b") as b:
        inbox = await b.subscribe("lab/+/x")
        await b.wait_connected(5)
        for number in range(50):
            await a.publish("lab/1/x", b"%d" % number)
        async with asyncio.timeout(5):
            assert [int((await anext(inbox)).payload) for _ in range(50)] == list(range(50))


async def test_state_is_online_then_stopped(run_broker):
    """A clean stop is told apart from a crash."""
    async with run_broker() as broker, connect(settings(broker), "watcher") as watcher:
        states = await watcher.subscribe("lab/state")
        await watcher.wait_connected(5)
        async with connect(settings(broker), "node", presence=presence()) as node:
            await node.wait_connected(5)
            async with asyncio.timeout(5):
                assert (await anext(states)).payload.startswith(b"online")
        async with asyncio.timeout(5):
            assert (await anext(states)).payload == b"stopped %d" % node.session


async def test_a_dead_connection_leaves_its_will(run_broker):
    """The will carries the session of its own connection."""
    async with run_broker() as broker, connect(settings(broker), "watcher") as watcher:
        states = await watcher.subscribe("lab/state")
        await watcher.wait_connected(5)
        async with (
            ShapedLink(broker.port) as link,
            connect(BrokerSettings(url=f"mqtt://127.0.0.1:{link.port}"), "node", presence=presence()) as node,
        ):
            await node.wait_connected(5)
            session = node.session
            link.cut()
            async with asyncio.timeout(5):
                seen = [(await anext(states)).payload for _ in range(2)]
            assert seen[0].startswith(b"online")
            assert seen[1] == b"offline %d" % session


async def test_a_new_broker_gets_everything_again(run_embedded):
    """A broker that comes back with nothing: subscriptions, birth and kept messages are renewed."""
    async with run_embedded() as first:
        port = first.port
        node = connect(settings(first), "node", presence=presence())
        bus = await node.__aenter__()
        inbox = await bus.subscribe("lab/in")
        await bus.keep("lab/kept", b"kept")
        await bus.wait_connected(5)
    try:
        async with run_embedded(port=port) as second, connect(settings(second), "other") as other:
            await bus.reconnected(1)
            kept = await other.subscribe("lab/#")
            await other.wait_connected(5)
            async with asyncio.timeout(5):
                found = {(await anext(kept)).topic for _ in range(2)}
            assert found == {"lab/kept", "lab/state"}
            await other.publish("lab/in", b"again")
            async with asyncio.timeout(5):
                assert (await anext(inbox)).payload == b"again"
    finally:
        await node.__aexit__(None, None, None)


async def test_a_full_inbox_drops_and_counts_qos_0(run_embedded):
    """A reader that sleeps costs bounded memory, and the loss is seen."""
    async with run_embedded() as broker, connect(settings(broker), "a") as a, connect(settings(broker), "b") as b:
        inbox = await b.subscribe("x", qos=0, limit=5)
        await b.wait_connected(5)
        for number in range(50):
            await a.publish("x", b"%d" % number, qos=0)
        await a.publish("x", b"last", qos=1)
        async with asyncio.timeout(5):
            while inbox.dropped < 46:
                await asyncio.sleep(0.01)
        assert len(inbox) == 5
        assert b.telemetry.counters["bus_dropped"] == 46


async def test_a_message_too_large_for_the_broker_is_refused_here(run_broker):
    """A broker would cut the connection, and the message would come again at each reconnect."""
    async with run_broker(max_packet_size=100_000) as broker, connect(settings(broker), "a") as bus:
        await bus.wait_connected(5)
        if bus.max_packet_size is None:
            pytest.skip("MQTT 3.1.1 announces no limit")
        with pytest.raises(Refused, match="100000"):
            await bus.publish("x", bytes(200_000))
        await bus.publish("x", b"small")


async def test_a_broker_that_is_not_there_is_a_clear_error(unused_tcp_port):
    """What a new user sees first."""
    gone = BrokerSettings(url=f"mqtt://127.0.0.1:{unused_tcp_port}")
    async with connect(gone, "a") as bus:
        with pytest.raises(BusError, match="megace2 broker"):
            await bus.wait_connected(0.3)


async def test_a_wrong_password_is_a_clear_error(run_embedded):
    """Trying again would never help."""
    from broker.settings import Access

    async with run_embedded(access=Access(authenticate=lambda *_: False)) as broker:
        with pytest.raises(BusError, match="username and password"):
            async with connect(settings(broker), "a"):
                await asyncio.sleep(5)


async def test_a_duplicate_id_is_told(run_broker, caplog: pytest.LogCaptureFixture):
    """Two nodes of one id throw each other out for ever; the log says what to look for."""
    told = ""
    async with run_broker() as broker:
        try:
            async with asyncio.timeout(8), connect(settings(broker), "same", presence=presence("a")) as first:
                await first.wait_connected(5)
                async with connect(settings(broker), "same", presence=presence("b")):
                    while "is another node called 'same' connected?" not in caplog.text:
                        await asyncio.sleep(0.05)
        except BusError as error:  # a broker that names the reason ends the older one
            told = str(error)
    assert "another node called 'same'" in told + caplog.text


async def test_a_patient_reader_makes_the_broker_wait(run_broker):
    """A flood at QoS 1 beyond a slow reader's inbox is neither dropped nor reordered."""
    async with run_broker() as broker, connect(settings(broker), "a") as a, connect(settings(broker), "b") as b:
        inbox = await b.subscribe("x", limit=8, patient=True)
        await b.wait_connected(5)
        flood = [asyncio.create_task(a.publish("x", b"%d" % number)) for number in range(300)]
        seen = []
        async with asyncio.timeout(20):
            while len(seen) < 300:
                seen.append(int((await anext(inbox)).payload))
                if len(seen) % 20 == 0:
                    await asyncio.sleep(0.01)
        await asyncio.gather(*flood)
        assert seen == list(range(300))
        assert inbox.dropped == 0


async def test_a_pause_ends_by_itself(run_embedded, monkeypatch: pytest.MonkeyPatch):
    """Whoever stops reading an inbox for ever must not take the connection down with it."""
    monkeypatch.setattr("megace2_iot.mqtt.LONGEST_PAUSE", 0.2)
    async with run_embedded() as broker, connect(settings(broker), "a") as a, connect(settings(broker), "b") as b:
        await b.subscribe("x", qos=0, limit=4, patient=True)
        other = await b.subscribe("y")
        await b.wait_connected(5)
        for _ in range(20):
            await a.publish("x", b"", qos=0)
        await a.publish("y", b"heard")
        async with asyncio.timeout(5):
            assert (await anext(other)).payload == b"heard"
        assert b.telemetry.counters["bus_dropped"] > 0


async def test_small_packets_leave_at_once(run_embedded):
    """Without TCP_NODELAY each exchange waits 40 ms for a delayed acknowledgement."""
    async with run_embedded() as broker, connect(settings(broker), "a") as a:
        await a.wait_connected(5)
        assert a._connection is not None
        assert a._connection._client._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
