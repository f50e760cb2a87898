"""A broker that leaves an answer out: a PUBACK or a SUBACK that never comes, on a link that is well."""

import asyncio
import contextlib

import pytest
from tiers import until

from broker.codec import encode
from broker.framing import PacketReader
from broker.packets import Connack, Connect, Pingreq, Pingresp, Puback, Publish, Suback, Subscribe
from megace2_iot import mqtt
from megace2_iot.bus import BrokerSettings, LinkLost, Presence, connect, session

MUTE = "site/mute"  # what is said or asked there has no answer


class Mute:
    """Answers all but what is about `MUTE`, of which it leaves out the first `times`."""

    def __init__(self, times):
        self.left = times

    async def serve(self, reader, writer):
        packets = PacketReader(2**20, 4)
        while piece := await reader.read(65_536):
            for packet in packets.feed(piece):
                if (answer := self.answer(packet)) is not None:
                    writer.write(encode(answer))
        writer.close()

    def answer(self, packet):
        match packet:
            case Connect():
                return Connack()
            case Pingreq():
                return Pingresp()
            case Publish(topic=topic) if self.answers(topic):
                return Puback(packet.packet_id)
            case Subscribe(requests=requests) if self.answers(requests[0].topic_filter):
                return Suback(packet.packet_id, (1,) * len(requests))
        return None

    def answers(self, topic):
        self.left -= topic == MUTE
        return topic != MUTE or self.left < 0


@contextlib.asynccontextmanager
async def mute(times, addresses):
    """Settings for that broker, under so many addresses."""
    server = await asyncio.start_server(Mute(times).serve, "127.0.0.1", 0)
    async with server:
        url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield BrokerSettings(url=",".join([url] * addresses), protocol="3.1.1", repeat_retained="no")


async def test_a_cluster_that_does_not_confirm_is_left(monkeypatch, caplog):
    """The log names the message, and whoever sent it learns that it may be lost; the next node is asked."""
    monkeypatch.setattr(session, "CONFIRMING", 0.2)
    async with mute(1, 2) as settings, connect(settings, "a") as bus:
        await bus.wait_connected(5)
        with pytest.raises(LinkLost, match=f"{MUTE} was not confirmed within 0.2 s"):
            await bus.publish(MUTE, b"first")
        await bus.reconnected(1)
        await bus.publish(MUTE, b"again")
    assert f"lost ({MUTE} was not confirmed within 0.2 s)" in caplog.text


async def test_a_single_broker_may_take_its_time(monkeypatch):
    """It withholds the confirmation so that we wait: the connection stays, and so does the message."""
    monkeypatch.setattr(session, "CONFIRMING", 0.1)
    async with mute(1, 1) as settings, connect(settings, "a") as bus:
        await bus.wait_connected(5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await bus.publish(MUTE, b"first")
        await bus.publish("site/other", b"second")
        assert bus.connects == 1


async def test_a_subscription_that_is_not_answered_is_made_anew(monkeypatch):
    """Nobody would hear anything by it, and nothing would tell."""
    monkeypatch.setattr(mqtt, "SUBSCRIBING", 0.2)
    async with mute(1, 1) as settings, connect(settings, "a") as bus:
        await bus.wait_connected(5)
        await bus.subscribe(MUTE)
        await until(lambda: bus.connects == 2)


@pytest.mark.parametrize(("addresses", "node", "qos"), [(1, None, 1), (2, None, 0), (2, "a", 1)])
async def test_an_observer_of_a_cluster_leaves_nothing_behind(run_embedded, addresses, node, qos):
    """What QoS 1 needs outlives its node in RabbitMQ 3, and stops those who publish; tiers have lasting sessions."""
    presence = Presence(topic="site/a/state", payload=lambda state, _: state.encode()) if node else None
    async with run_embedded() as broker:
        settings = BrokerSettings(url=",".join([broker.url] * addresses), repeat_retained="no")
        async with connect(settings, "a", presence=presence) as bus:
            await bus.wait_connected(5)
            heard = await bus.subscribe("site/news", qos=1)
            await bus.publish("site/news", b"new")
            assert (await anext(heard)).qos == qos
