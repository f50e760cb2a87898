"""MQTT 5's messages: properties, aliases, limits each way, options of subscriptions, reasons of every answer."""

from __future__ import annotations

import pytest
from wire import Wire, wire5

from broker import Access, EmbeddedSettings, embedded_broker
from broker.packets import (
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Pubrec,
    Request,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from broker.properties import Properties
from broker.reasons import Reason


async def test_properties_reach_the_receiver_as_they_were_sent() -> None:
    """Protects request and response, content types and user properties, in order and doubled; live and retained."""
    sent = Properties(
        payload_format=1,
        content_type="text/plain",
        response_topic="answers/me",
        correlation_data=b"\x00\xff",
        user=(("b", "1"), ("a", "2"), ("b", "1")),
    )
    async with embedded_broker() as broker, wire5(broker.port, "in") as reader, wire5(broker.port, "out") as out:
        await reader.subscribe(("t", 2))
        for qos in (0, 1, 2):
            await out.publish("t", b"x", qos, retain=True, **{name: getattr(sent, name) for name in sent.__slots__})
            assert (await reader.receive()).properties == sent
        await reader.subscribe(("t", 0))
        assert (await reader.receive()).properties == sent


async def test_both_versions_meet_on_one_topic() -> None:
    """Protects old devices beside new ones: 3.1.1 gets the payload alone, and what it sends has no properties."""
    async with embedded_broker() as broker, wire5(broker.port, "new") as new, Wire(broker.port, "old") as old:
        for client in (new, old):
            await client.subscribe(("t", 1))
        for out, payload, content in ((wire5(broker.port), b"5", {"content_type": "x"}), (Wire(broker.port), b"4", {})):
            async with out:
                await out.publish("t", payload, **content)
        assert [(m.payload, m.properties) for m in [await old.receive() for _ in range(2)]] == [
            (b"5", Properties()),
            (b"4", Properties()),
        ]
        assert [(await new.receive()).properties.content_type for _ in range(2)] == ["x", None]


async def test_an_alias_stands_for_its_topic_on_its_connection() -> None:
    """Protects the client's aliases: set, used, changed, and forgotten with the connection."""
    async with embedded_broker() as broker, wire5(broker.port, "in") as reader:
        await reader.subscribe(("#", 0))
        async with wire5(broker.port, "out") as out:
            for topic, alias in (("a", 1), ("b", 2), ("", 1), ("c", 1), ("", 1), ("", 2)):
                await out.publish(topic, b"", topic_alias=alias)
        assert [(await reader.receive()).topic for _ in range(6)] == ["a", "b", "a", "c", "c", "b"]
        for alias, reason in ((1, Reason.PROTOCOL_ERROR), (65, Reason.TOPIC_ALIAS_INVALID)):
            async with wire5(broker.port, "out") as out:
                await out.send(Publish("", b"", properties=Properties(topic_alias=alias)))
                assert (await out.expect(Disconnect)).reason == reason


async def test_the_broker_uses_the_aliases_that_a_client_allows() -> None:
    """Protects the other way: a topic is named once, and the least lately used alias is given to a new topic."""
    async with embedded_broker() as broker, wire5(broker.port, "in", topic_alias_maximum=2) as reader:
        await reader.subscribe(("#", 1))
        async with wire5(broker.port, "out") as out:
            for topic in "abacbc":
                await out.publish(topic)
        seen = [await reader.receive() for _ in range(6)]
        named = [(message.topic, message.properties.topic_alias) for message in seen]
        assert named == [("a", 1), ("b", 2), ("", 1), ("c", 2), ("b", 1), ("", 2)]


async def test_a_client_is_sent_no_larger_packet_than_it_takes() -> None:
    """Protects a small device: a message that is too large counts as delivered, and the next one comes."""
    async with embedded_broker() as broker, wire5(broker.port, "in", maximum_packet_size=100) as reader:
        await reader.subscribe(("t", 1))
        async with wire5(broker.port, "out") as out:
            for size in (93, 92):  # two of fixed header, three of topic, two of packet id, one of properties
                await out.publish("t", bytes(size))
        assert len((await reader.receive()).payload) == 92
        await reader.send(Pingreq())
        assert await reader.next() == Pingresp()
        assert (broker.stats().queued, broker.stats().dropped) == (0, {"client_limit": 1})
        await reader.send(Subscribe(9, tuple(Request(f"x{n}", 0) for n in range(100))))
        assert await reader.is_closed()


async def test_more_unfinished_publications_than_announced_end_the_connection() -> None:
    """Protects the broker's memory of QoS 2: what is not released counts, what is frees its place."""
    async with embedded_broker(EmbeddedSettings(receive_maximum=2)) as broker, wire5(broker.port, "out") as out:
        for _ in range(3):
            await out.publish("t", qos=2)
        await out.send(*(Publish("t", b"", 2, packet_id=n) for n in (11, 12, 11, 13)))
        assert [(await out.expect(Pubrec)).packet_id for _ in range(3)] == [11, 12, 11]
        assert (await out.expect(Disconnect)).reason == Reason.RECEIVE_MAXIMUM_EXCEEDED
        assert await out.is_closed()


async def test_a_window_of_the_clients_choice() -> None:
    """Protects a slow client: no more at once than its receive maximum, and the next for each answer."""
    async with embedded_broker() as broker, wire5(broker.port, "in", receive_maximum=2) as reader:
        await reader.subscribe(("t", 1))
        async with wire5(broker.port, "out") as out:
            for n in range(3):
                await out.publish("t", b"%d" % n)
        first, _ = [await reader.expect(Publish) for _ in range(2)]
        await reader.send(Pingreq())
        assert await reader.next() == Pingresp()
        await reader.send(Puback(first.packet_id))
        assert (await reader.expect(Publish)).payload == b"2"


async def test_answers_say_what_became_of_it() -> None:
    """Protects publishers and subscribers from silence: each code of PUBACK, SUBACK and UNSUBACK."""
    access = Access(may_publish=lambda client, topic: topic != "no", may_subscribe=lambda client, path: path != "no")
    settings = EmbeddedSettings(access=access, max_subscriptions=3)
    async with embedded_broker(settings) as broker, wire5(broker.port, "dev") as device:
        assert await device.publish("nobody") == Reason.NO_MATCHING_SUBSCRIBERS
        assert await device.publish("nobody", qos=2) == Reason.NO_MATCHING_SUBSCRIBERS
        assert await device.publish("no") == Reason.NOT_AUTHORIZED
        assert await device.publish("no", qos=2) == Reason.NOT_AUTHORIZED
        codes = await device.subscribe(
            ("a", 1), ("no", 1), ("#/a", 1), ("$share/g/b", 2), ("$share/g", 0), ("c", 0), ("d", 0)
        )
        assert codes == (1, 0x87, 0x8F, 2, 0x8F, 0, 0x97)
        await device.send(Unsubscribe(5, ("a", "never")))
        assert await device.expect(Unsuback) == Unsuback(5, (0, Reason.NO_SUBSCRIPTION_EXISTED))
        assert broker.stats().dropped == {"denied": 2}


async def test_reason_strings_are_only_for_who_wants_them() -> None:
    """Protects Request Problem Information."""
    access = Access(may_publish=lambda client, topic: False, may_subscribe=lambda client, path: False)
    async with embedded_broker(EmbeddedSettings(access=access)) as broker:
        for wanted, words in ((1, "not authorized"), (0, None)):
            async with wire5(broker.port, "dev", request_problem_info=wanted) as device:
                await device.send(Publish("t", b"", 1, packet_id=1), Subscribe(2, (("t", 0),)))
                assert (await device.expect(Puback)).properties.reason_string == words
                assert (await device.expect(Suback)).properties.reason_string == words


async def test_a_broker_may_keep_its_reasons_to_itself() -> None:
    """Protects a site that tells strangers nothing: 0x80, and no words."""
    settings = EmbeddedSettings(access=Access(may_subscribe=lambda client, path: False), explain_refusals=False)
    async with embedded_broker(settings) as broker, wire5(broker.port, "dev") as device:
        await device.send(Subscribe(2, (("t", 0),)))
        assert await device.next() == Suback(2, (0x80,), Properties(reason_string="unspecified"))


async def test_no_local_spares_a_client_its_own() -> None:
    """Protects bridges from loops: own messages stay away, others' come; a wider filter without it brings both."""
    async with embedded_broker() as broker, wire5(broker.port, "a") as a, wire5(broker.port, "b") as b:
        await a.subscribe(Request("t", 1, no_local=True))
        await a.publish("t", b"own")
        await b.publish("t", b"other")
        assert (await a.receive()).payload == b"other"
        await a.subscribe(("#", 0))
        await a.send(Publish("t", b"both"))
        assert (await a.receive()).payload == b"both"
        await a.send(Subscribe(7, (Request("$share/g/t", 1, no_local=True),)))
        assert (await a.expect(Disconnect)).reason == Reason.PROTOCOL_ERROR


@pytest.mark.parametrize("kept", [False, True])
async def test_the_retain_flag_is_kept_for_who_asks(kept: bool) -> None:
    """Protects bridges, which must know what was retained; others see the flag on old messages only."""
    async with embedded_broker() as broker, wire5(broker.port, "in") as reader:
        await reader.subscribe(Request("t", 1, retain_as_published=kept))
        async with wire5(broker.port, "out") as out:
            await out.publish("t", b"x", retain=True)
            await out.publish("t", b"x")
        assert [(await reader.receive()).retain for _ in range(2)] == [kept, False]


async def test_retained_messages_come_as_the_subscription_wants_them() -> None:
    """Protects Retain Handling: always, only for a new subscription, never."""
    async with embedded_broker() as broker, wire5(broker.port, "in") as reader:
        await reader.publish("t", b"x", retain=True)
        for handling, expected in ((2, 0), (1, 0), (0, 1), (0, 1)):
            await reader.subscribe(Request("t", 0, retain_handling=handling))
            await reader.send(Pingreq())
            got = 0
            while await reader.next() != Pingresp():
                got += 1
            assert got <= expected
            assert got == expected or await reader.receive()
        await reader.subscribe(Request("t/#", 0, retain_handling=1))
        assert (await reader.receive()).retain


async def test_every_matching_identifier_comes_with_the_message() -> None:
    """Protects clients that dispatch by subscription identifier: one copy, all identifiers, also for retained ones."""
    async with embedded_broker() as broker, wire5(broker.port, "in") as reader:
        await reader.subscribe(("a/#", 0), subscription_ids=(7,))
        await reader.subscribe(("a/+", 2), subscription_ids=(300_000,))
        await reader.subscribe(("+/b", 1))
        await reader.publish("a/b", b"x", 0, retain=True)
        message = await reader.receive()
        assert (sorted(message.properties.subscription_ids), message.qos) == ([7, 300_000], 0)
        await reader.subscribe(("a/b", 0), subscription_ids=(9,))
        assert (await reader.receive()).properties.subscription_ids == (9,)
        await reader.send(Publish("a/b", b"", properties=Properties(subscription_ids=(1,))))
        assert (await reader.expect(Disconnect)).reason == Reason.PROTOCOL_ERROR


async def test_text_that_is_none_is_refused_where_that_is_asked() -> None:
    """Protects readers of texts: with the setting, a payload declared as UTF-8 must be."""
    async with (
        embedded_broker(EmbeddedSettings(validate_utf8_payloads=True)) as broker,
        wire5(broker.port, "in") as reader,
    ):
        await reader.subscribe(("t", 1))
        assert await reader.publish("t", b"\xff", payload_format=1) == Reason.PAYLOAD_FORMAT_INVALID
        for payload, declared in ((b"\xff", 0), ("ä".encode(), 1)):
            await reader.send(Publish("t", payload, 0, properties=Properties(payload_format=declared)))
            assert (await reader.receive()).payload == payload
