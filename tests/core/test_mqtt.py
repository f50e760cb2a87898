"""The private members of aiomqtt and paho that mqtt.py reaches into: a new version of either fails here first."""

import asyncio
import inspect

import aiomqtt
import paho.mqtt.client as paho
import pytest

from megace2_iot.mqtt import Connection, _read_publish


@pytest.mark.parametrize(
    "name",
    [
        *("_on_connect", "_on_disconnect", "_on_publish", "_on_subscribe", "_on_unsubscribe"),
        *("_on_socket_open", "_wait_for"),
    ],
)
def test_the_overridden_callbacks_have_the_same_arguments(name: str):
    """aiomqtt hands them to paho by these names."""
    ours = list(inspect.signature(getattr(Connection, name)).parameters)
    assert ours == list(inspect.signature(getattr(aiomqtt.Client, name)).parameters)


async def test_the_members_we_use_exist():
    """`_client`, `_disconnected`, what is pending, and of paho's client ack, manual_ack_set and _sock_close."""
    client = aiomqtt.Client("localhost")
    assert isinstance(client._client, paho.Client)
    assert not client._disconnected.done() and client._misc_task is None and callable(client._misc_loop)
    assert client._pending_subscribes == client._pending_unsubscribes == {}
    for name in ("ack", "manual_ack_set", "_sock_close", "_create_socket", "_handle_publish", "loop_read"):
        assert callable(getattr(client._client, name))
    assert {"command", "packet"} <= client._client._in_packet.keys()


@pytest.mark.parametrize("properties", [b"", b"\x00", b"\x03\x01\x02\x03", b"\x81\x01" + bytes(129)])
def test_a_publish_is_read_as_it_is_written(properties: bytes):
    """Topic, packet id, properties of any length (MQTT 5), and the payload, empty or not."""
    packet = b"\x00\x03a/b" + b"\x01\x02" + properties
    for payload in (b"", b"payload"):
        delivery = _read_publish(0x3B, packet + payload, properties=bool(properties))
        assert delivery == ("a/b", payload, True, 0x102, 1)


@pytest.mark.parametrize(
    ("command", "packet"),
    [
        (48, b""),
        (48, b"\x00\x05a"),
        (48, b"\x00\x00x"),
        (48, b"\x00\x01\xff"),
        (50, b"\x00\x01a\x00"),
        (52, b"\x00\x01a\x00\x01"),
        (48, b"\x00\x01a\xff\xff"),
        (48, b"\x00\x01a\x05\x00"),
    ],
)
def test_a_damaged_publish_is_a_protocol_error(command: int, packet: bytes):
    """Nothing but ValueError and IndexError, which end the connection."""
    with pytest.raises((ValueError, IndexError)):
        _read_publish(command, packet, properties=command == 0x30 and len(packet) > 3)


async def test_a_cancellation_is_not_lost_to_an_answer_that_comes_with_it():
    """Or a tier that was told to stop while it subscribed would go on for ever."""
    connection = Connection("localhost", on_delivery=lambda connection, delivery: None)
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(connection._wait_for(answer, 5))
    await asyncio.sleep(0)
    answer.set_result(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_answer_that_does_not_come_is_a_time_out():
    """`auto` falls back to MQTT 3.1.1 by these words."""
    connection = Connection("localhost", on_delivery=lambda connection, delivery: None)
    with pytest.raises(aiomqtt.MqttError, match="timed out"):
        await connection._wait_for(asyncio.get_running_loop().create_future(), 0.01)
