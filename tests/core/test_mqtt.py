"""The private members of aiomqtt and paho that mqtt.py reaches into: a new version of either fails here first."""

import inspect

import aiomqtt
import paho.mqtt.client as paho
import pytest

from megace2_iot.mqtt import Connection


@pytest.mark.parametrize("name", ["_on_connect", "_on_message", "_on_publish", "_on_subscribe", "_on_unsubscribe"])
def test_the_overridden_callbacks_have_the_same_arguments(name: str):
    """aiomqtt hands them to paho by these names."""
    ours = list(inspect.signature(getattr(Connection, name)).parameters)
    assert ours == list(inspect.signature(getattr(aiomqtt.Client, name)).parameters)


async def test_the_members_we_use_exist():
    """`_client`, `_disconnected`, what is pending, and of paho's client ack, manual_ack_set and _sock_close."""
    client = aiomqtt.Client("localhost")
    assert isinstance(client._client, paho.Client)
    assert not client._disconnected.done()
    assert client._pending_subscribes == client._pending_unsubscribes == {}
    for name in ("ack", "manual_ack_set", "_sock_close"):
        assert callable(getattr(client._client, name))
