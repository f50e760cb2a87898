"""What comes with a WebSocket's request, before it is answered: frames that wait, and bytes that are none."""

from __future__ import annotations

import asyncio
import logging

import pytest

from broker import EmbeddedSettings, embedded_broker
from broker.codec import encode
from broker.packets import Connack, Connect

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)


def frame(opcode: int, data: bytes) -> bytes:
    """Masked by zeros."""
    return bytes((0x80 | opcode, 0x80 | len(data), 0, 0, 0, 0)) + data


async def talk(port: int, data: bytes, end: bytes) -> bytes:
    """All that the broker says to `data`, which is one piece, until it says `end` or hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            return await reader.readuntil(end)
    except asyncio.IncompleteReadError as error:
        return error.partial
    except ConnectionError:  # closed with bytes of ours unread
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\nHo",  # refused, and followed by no frame
        b"GET / HTTP/1.1\r\n\r\n" + frame(8, b""),
        REQUEST + b"Ho",
        REQUEST + frame(8, b"") + frame(2, encode(Connect("dev"))),
        REQUEST + frame(9, b"ping") + frame(1, b"text") + frame(8, b""),
        REQUEST + frame(0, b"of nothing"),
        b"\n" * 300_000,
        REQUEST[:-2] + b"a: b\r\n" * 1000,
    ],
)
async def test_whatever_follows_a_request_ends_one_connection(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Protects the listener: the client is answered or hung up on, nothing is logged as an error, others are served."""
    async with embedded_broker(EmbeddedSettings(websocket=True)) as broker:
        await talk(broker.port, data, b"never said")
        assert encode(Connack()) in await talk(
            broker.port, REQUEST + frame(2, encode(Connect("dev"))), encode(Connack())
        )
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
