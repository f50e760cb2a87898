"""Opening a connection: which version of MQTT, which session, which will."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Callable
from typing import Literal

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from megace2_iot import mqtt
from megace2_iot.bus.settings import BrokerSettings
from megace2_iot.mqtt import Connection, Delivery

WAIT_FOR_ALERT = 1.0  # s
RECEIVE_WINDOW = 64  # messages a broker of MQTT 5 may have unacknowledged with us; smaller than any inbox
Protocol = Literal["auto", "5", "3.1.1"]
OnDelivery = Callable[[Connection, Delivery], None]


def first_of(settings: BrokerSettings, node: str) -> int:
    """Which address a node tries first: the same one always, and nodes are spread over all."""
    return zlib.crc32(node.encode()) % len(settings.addresses)


async def open_connection(
    settings: BrokerSettings, node: str, will: aiomqtt.Will | None, on_delivery: OnDelivery, protocol: Protocol
) -> tuple[Connection, Protocol]:
    """Connect; returns what the broker speaks, too, which the next call may name.

    `auto` tries MQTT 5 first and 3.1.1 with a broker that refuses, ignores or closes it; a close is not remembered, as
    it may have been the link's. Without a `will` the node is an observer, and the broker keeps no session of it. Raises
    what aiomqtt raises.
    """
    if protocol != "auto":
        return await _open_as(protocol, settings, node, will, on_delivery), protocol
    try:
        return await _open_as("5", settings, node, will, on_delivery), "5"
    except MqttConnectError as error:
        if getattr(error.rc, "value", error.rc) not in mqtt.UNSUPPORTED_VERSION:
            raise
    except aiomqtt.MqttError as error:
        if str(error) == mqtt.CLOSED_EARLY:
            return await _open_as("3.1.1", settings, node, will, on_delivery), "auto"
        if "timed out" not in str(error):
            raise
    return await _open_as("3.1.1", settings, node, will, on_delivery), "3.1.1"


async def _open_as(
    protocol: Literal["5", "3.1.1"],
    settings: BrokerSettings,
    node: str,
    will: aiomqtt.Will | None,
    on_delivery: OnDelivery,
) -> Connection:
    five, transient = protocol == "5", will is None
    properties = None
    if five:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 0 if transient else settings.session_expiry
        properties.ReceiveMaximum = RECEIVE_WINDOW
    connection = Connection(
        settings.host,
        settings.port,
        on_delivery=on_delivery,
        identifier=node,
        username=settings.username,
        password=settings.password,
        protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311,
        clean_session=None if five else transient,
        clean_start=transient if five else 3,
        properties=properties,
        will=will,
        keepalive=settings.keepalive,
        timeout=settings.timeout,
        max_inflight_messages=64,
        tls_context=settings.tls(),
    )
    try:
        await connection.__aenter__()
    except BaseException:  # cancelled, too: its socket and keepalive task must not stay
        await connection.leave(gracefully=False)
        raise
    return connection


async def why_not(settings: BrokerSettings) -> str:
    """What TLS says, in a handshake of our own: paho tells its errors as a timeout. Empty where nothing is wrong.

    With TLS 1.3 a server refuses a certificate after the handshake, so one byte is waited for.
    """
    context = settings.tls()
    if context is None:
        return ""
    try:
        async with asyncio.timeout(settings.timeout):
            reader, writer = await asyncio.open_connection(settings.host, settings.port, ssl=context)
            try:
                async with asyncio.timeout(WAIT_FOR_ALERT):
                    await reader.read(1)
            finally:
                writer.close()
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not believed: {error.verify_message}"
    except ssl.SSLError as error:
        return f"it does not accept this node's certificate: {error.reason or error}"
    except (OSError, TimeoutError):
        return ""
    return ""
