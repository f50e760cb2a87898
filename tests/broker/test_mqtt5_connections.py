"""MQTT 5 from CONNECT to DISCONNECT: what is announced, assigned, refused, taken over and said at the end."""

from __future__ import annotations

import pytest
from wire import answer_of, refusal, wire5

from broker import Access, EmbeddedSettings, embedded_broker
from broker.codec import encode
from broker.framing import PacketReader
from broker.packets import V5, Auth, Connack, Connect, Disconnect, Pingreq, Pingresp, Publish, Will
from broker.properties import Properties
from broker.reasons import Reason


async def test_the_broker_announces_its_limits() -> None:
    """Protects clients from finding the limits by being closed: each that differs from the standard's is told."""
    settings = EmbeddedSettings(receive_maximum=10, topic_alias_maximum=3, max_qos=1, retain_available=False)
    async with embedded_broker(settings) as broker, wire5(broker.port, "dev", session_expiry=0xFFFFFFFF) as device:
        told = device.connack.properties
    assert (told.receive_maximum, told.topic_alias_maximum, told.maximum_qos, told.retain_available) == (10, 3, 1, 0)
    assert (told.maximum_packet_size, told.session_expiry) == (1 << 20, 14 * 86_400)
    assert (told.server_keepalive, told.assigned_client_id, told.response_info, told.reason_string) == (None,) * 4


async def test_a_nameless_client_learns_its_name() -> None:
    """Protects its session: with the assigned id it can come back to it."""
    async with embedded_broker() as broker:
        async with wire5(broker.port, "", clean_session=False, session_expiry=60) as device:
            name = device.connack.properties.assigned_client_id
        assert name
        async with wire5(broker.port, name, clean_session=False) as device:
            assert device.connack.session_present


async def test_a_longer_keepalive_than_the_brokers_is_corrected() -> None:
    """Protects the time in which a dead client is noticed; 0 and shorter ones stay."""
    async with embedded_broker() as broker:
        for asked, told in ((120, 60), (60, None), (10, None), (0, None)):
            async with wire5(broker.port, "dev", keepalive=asked) as device:
                assert device.connack.properties.server_keepalive == told


async def test_response_information_is_given_where_it_is_asked_for() -> None:
    """Protects request and response: a client learns where its answers may go."""
    async with embedded_broker(EmbeddedSettings(response_prefix="answers")) as broker:
        for asked, told in ((1, "answers/dev"), (0, None), (None, None)):
            async with wire5(broker.port, "dev", request_response_info=asked) as device:
                assert device.connack.properties.response_info == told


@pytest.mark.parametrize(
    ("connect", "reason"),
    [
        (Connect("dev", properties=Properties(auth_method="SCRAM")), Reason.BAD_AUTHENTICATION_METHOD),
        (Connect("x" * 300), Reason.BAD_CLIENT_ID),
        (Connect("dev", username="u", password=b"wrong"), Reason.BAD_LOGIN),
        (Connect("dev", will=Will("forbidden", b"")), Reason.NOT_AUTHORIZED),
        (Connect("dev", will=Will("w", b"", 2)), Reason.QOS_NOT_SUPPORTED),
        (Connect("dev", will=Will("w", b"", retain=True)), Reason.RETAIN_NOT_SUPPORTED),
    ],
    ids=lambda value: value.name if isinstance(value, Reason) else "",
)
async def test_a_refused_client_is_told_why(connect: Connect, reason: Reason) -> None:
    """Protects who debugs a client: the reason as a code, and in words unless it wants none."""
    access = Access(lambda client, user, password: password != b"wrong", lambda client, topic: topic != "forbidden")
    settings = EmbeddedSettings(access=access, max_qos=1, retain_available=False)
    async with embedded_broker(settings) as broker:
        for wanted, words in ((None, reason.text), (0, None)):
            properties = Properties(auth_method=connect.properties.auth_method, request_problem_info=wanted)
            attempt = Connect(
                connect.client_id, True, 0, connect.username, connect.password, connect.will, V5, properties
            )
            assert await refusal(broker.port, attempt) == Connack(reason, False, Properties(reason_string=words))
        assert broker.stats().ended == {"refused": 2}


async def test_a_malformed_connect_is_answered_in_its_own_version() -> None:
    """Protects the same where nothing but the version could be read."""
    async with embedded_broker() as broker:
        wrong = encode(Connect("dev", level=V5, properties=Properties(receive_maximum=0)))
        (connack,) = PacketReader(1000, V5).feed(await answer_of(broker.port, wrong))
        assert connack.return_code == Reason.PROTOCOL_ERROR


async def test_a_session_taken_over_is_told() -> None:
    """Protects against two nodes of one id that throw each other out without a word."""
    async with embedded_broker() as broker, wire5(broker.port, "dev") as old, wire5(broker.port, "dev"):
        assert (await old.expect(Disconnect)).reason == Reason.SESSION_TAKEN_OVER
        assert await old.is_closed()


async def test_the_end_has_a_reason() -> None:
    """Protects clients from guessing: silence, an oversize packet, a stranger's packet, the broker's own end."""
    async with embedded_broker(EmbeddedSettings(max_packet_size=1000)) as broker:
        async with (
            wire5(broker.port, "a", keepalive=1) as silent,
            wire5(broker.port, "b") as big,
            wire5(broker.port) as odd,
        ):
            await big.send(Publish("t", bytes(2000)))
            assert (await big.expect(Disconnect)).reason == Reason.PACKET_TOO_LARGE
            await odd.send(Auth(0x18, Properties(auth_method="x")))
            assert (await odd.expect(Disconnect)).reason == Reason.PROTOCOL_ERROR
            assert (await silent.expect(Disconnect)).reason == Reason.KEEP_ALIVE_TIMEOUT
        last = wire5(broker.port, "last")
        await last.__aenter__()
    assert (await last.expect(Disconnect)).reason == Reason.SERVER_SHUTTING_DOWN
    await last.__aexit__()


async def test_disconnect_may_change_the_expiry_but_not_invent_a_session() -> None:
    """Protects a client's last word on its session, and the rule that it must have had one."""
    async with embedded_broker() as broker:
        async with wire5(broker.port, "dev", session_expiry=60) as device:
            await device.send(Disconnect(0, Properties(session_expiry=0)))
            assert await device.is_closed()
        assert broker.stats().sessions == 0
        async with wire5(broker.port, "dev") as device:
            await device.send(Disconnect(0, Properties(session_expiry=60)))
            assert (await device.expect(Disconnect)).reason == Reason.PROTOCOL_ERROR


async def test_a_will_with_properties_may_follow_a_goodbye() -> None:
    """Protects DISCONNECT with will: reason 4 asks for it, 0 takes it back; its properties come with it."""
    will = Will("state", b"gone", 1, properties=Properties(content_type="text", user=(("a", "1"),)))
    async with embedded_broker() as broker, wire5(broker.port, "edge") as edge:
        await edge.subscribe(("state", 1))
        for reason in (0, 4):
            async with wire5(broker.port, "dev", will=will) as device:
                await device.send(Disconnect(reason))
                assert await device.is_closed()
        assert (await edge.receive()).properties == Properties(content_type="text", user=(("a", "1"),))
        await edge.send(Pingreq())
        assert await edge.next() == Pingresp()


async def test_clean_start_and_a_lasting_session_go_together() -> None:
    """Protects MQTT 5's two separate wishes: forget what was, and keep what will be."""
    async with embedded_broker() as broker, wire5(broker.port, "out") as out:
        async with wire5(broker.port, "in", session_expiry=60) as reader:
            assert not reader.connack.session_present
            await reader.subscribe(("t", 1))
        await out.publish("t", b"kept")
        async with wire5(broker.port, "in", clean_session=False) as reader:
            assert reader.connack.session_present
            assert await reader.payloads(1) == [b"kept"]
        async with wire5(broker.port, "in", clean_session=False) as reader:  # it asked for no more
            assert not reader.connack.session_present
