"""The ends of a connection without a network: what they take for a finding, and what a library's errors become."""

from __future__ import annotations

import asyncio
import logging
import struct

import pytest
from aiomqtt import ProtocolVersion

from megace2_iot.mqtt import Connection
from tests.fuzz import seeds, sockets

SERVED, NODE = [sockets.served(websocket=websocket) for websocket in (False, True)], sockets.node(ProtocolVersion.V5)


async def test_a_packet_that_paho_cannot_unpack_costs_the_link_and_nothing_more() -> None:
    """paho 2.1 raises struct.error for a SUBACK of two bytes: a broker must not end a tier with that."""
    connection = Connection("broker", protocol=ProtocolVersion.V5, on_delivery=lambda link, delivery: None)

    def damaged() -> None:
        struct.unpack("!H", b"")

    connection._client.loop_read = damaged  # type: ignore[assignment,method-assign]
    connection._read(connection._client)
    async with asyncio.timeout(5):
        assert "unpack requires" in await connection.lost()


def test_an_error_in_the_brokers_log_is_a_finding() -> None:
    """It has a traceback for nobody, and one client could fill a disk with them."""
    with pytest.raises(AssertionError, match="opening failed"), sockets._strict():
        logging.getLogger("megace2.broker.websocket").error("opening failed")


def test_sound_packets_reach_both_ends() -> None:
    """The harness would find nothing if it only ever hung up."""
    connect, publish = seeds.broker_packets(5)[:2]
    for websocket in (False, True):
        head, wrap = (seeds.UPGRADE, lambda one: seeds.frame(2, one)) if websocket else (b"", bytes)
        said = str(SERVED[websocket](head + wrap(connect) + wrap(publish)))
        assert said.startswith("2 2 "), said
    assert NODE(b"".join(seeds.node_packets(5)[:6]))
