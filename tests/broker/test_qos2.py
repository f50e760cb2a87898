"""QoS 2 over real sockets, for every broker: once, whoever drops the connection and wherever."""

from __future__ import annotations

import pytest
from wire import RunBroker, Wire

from broker import EmbeddedSettings, embedded_broker
from broker.packets import Pubcomp, Publish, Pubrec, Pubrel


@pytest.mark.parametrize("level", [4, 5])
async def test_qos_2_brings_each_message_once(run_broker: RunBroker, level: int) -> None:
    """Protects the four packets of QoS 2, both ways, and the lesser QoS of publication and subscription."""
    async with run_broker() as broker, Wire(broker.port, "in", level=level) as reader:
        assert await reader.subscribe(("t", 2)) == (2,)
        async with Wire(broker.port, "out", level=level) as out:
            for qos in (2, 1, 0):
                await out.publish("t", b"%d" % qos, qos=qos)
        assert sorted((message.payload, message.qos) for message in [await reader.receive() for _ in range(3)]) == [
            (b"0", 0),
            (b"1", 1),
            (b"2", 2),
        ]
        assert await reader.nothing_for(0.05)


async def test_a_publication_sent_again_is_delivered_once(run_broker: RunBroker) -> None:
    """Protects exactly-once from a publisher that lost the answer: same id before PUBREL, over a reconnect too."""
    async with run_broker() as broker, Wire(broker.port, "in") as reader:
        await reader.subscribe(("t", 2))
        for dup in (False, True):
            async with Wire(broker.port, "out", clean_session=False) as out:
                await out.send(Publish("t", b"once", 2, dup=dup, packet_id=7))
                assert await out.expect(Pubrec) == Pubrec(7)
        async with Wire(broker.port, "out", clean_session=False) as out:
            await out.send(Pubrel(7), Pubrel(7))  # the second is for a lost PUBCOMP
            assert [await out.expect(Pubcomp) for _ in range(2)] == [Pubcomp(7)] * 2
            await out.publish("t", b"next", qos=2)
        assert await reader.payloads(2) == [b"once", b"next"]


async def test_a_delivery_goes_on_after_a_reconnect(run_broker: RunBroker) -> None:
    """Protects exactly-once from a subscriber's reconnect: before PUBREC the message again, after it PUBREL."""
    async with run_broker() as broker:
        async with Wire(broker.port, "in", clean_session=False) as reader:
            await reader.subscribe(("t", 2))
            async with Wire(broker.port, "out") as out:
                await out.publish("t", b"x", qos=2)
            first = await reader.expect(Publish)
        async with Wire(broker.port, "in", clean_session=False) as reader:
            again = await reader.expect(Publish)
            assert (again.packet_id, again.payload, again.dup) == (first.packet_id, b"x", True)
            await reader.send(Pubrec(again.packet_id))
            assert await reader.expect(Pubrel) == Pubrel(again.packet_id)
        async with Wire(broker.port, "in", clean_session=False) as reader:
            assert await reader.expect(Pubrel) == Pubrel(again.packet_id)
            await reader.send(Pubcomp(again.packet_id))
        async with Wire(broker.port, "in", clean_session=False) as reader:
            assert await reader.nothing_for(0.05)


async def test_pubrec_waits_for_a_full_subscriber() -> None:
    """Protects QoS 2 as QoS 1: the publisher waits, in order with its PUBACKs, and nothing is dropped."""
    settings = EmbeddedSettings(max_queued_messages=2, max_inflight_messages=1)
    async with embedded_broker(settings) as broker, Wire(broker.port, "in") as reader, Wire(broker.port, "out") as out:
        await reader.subscribe(("t", 2))
        await out.send(*(Publish("t", b"%d" % n, 1 + n % 2, packet_id=n) for n in range(1, 6)))
        answers = [await out.next() for _ in range(2)]
        assert await out.nothing_for(0.1)
        assert await reader.payloads(5) == [b"1", b"2", b"3", b"4", b"5"]
        answers += [await out.next() for _ in range(3)]
        assert [answer.packet_id for answer in answers] == [1, 2, 3, 4, 5]
        assert broker.stats().dropped == {}


async def test_an_id_is_not_reused_while_its_exchange_lasts(run_embedded: RunBroker) -> None:
    """Protects the window: a message answered by PUBREC only still holds its id and its place."""
    async with run_embedded(max_inflight_messages=1) as broker, Wire(broker.port, "in") as reader:
        await reader.subscribe(("t", 2))
        async with Wire(broker.port, "out") as out:
            for _ in range(2):
                await out.publish("t", b"x", qos=2)
        first = await reader.expect(Publish)
        await reader.send(Pubrec(first.packet_id))
        assert await reader.expect(Pubrel) == Pubrel(first.packet_id)
        assert await reader.nothing_for(0.05)
        await reader.send(Pubcomp(first.packet_id))
        assert (await reader.expect(Publish)).packet_id != first.packet_id
