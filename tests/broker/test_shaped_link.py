"""The link that other tests and benchmarks trust: its rate, its small memory, and its faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from link import ShapedLink


@asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def test_the_rate_is_within_a_tenth() -> None:
    """Protects every figure that is measured over this link: 20 Mbit/s, both directions at once."""
    loop, size = asyncio.get_running_loop(), 2_500_000
    async with echo_server() as port, ShapedLink(port, rate_bit_s=20e6) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        began = loop.time()
        writer.write(bytes(size))
        await reader.readexactly(size)
        assert size * 8 / (loop.time() - began) == pytest.approx(20e6, rel=0.1)
        assert (link.bytes_up, link.bytes_down) == (size, size)
        writer.close()


async def test_the_latency_is_added_each_way() -> None:
    """Protects measured round trips."""
    loop = asyncio.get_running_loop()
    async with echo_server() as port, ShapedLink(port, latency_s=0.05) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        began = loop.time()
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        assert 0.1 <= loop.time() - began < 0.2
        writer.close()


async def test_a_slow_link_hides_no_queue() -> None:
    """Protects tests of back-pressure: what does not fit into the rate stays with the sender's own kernel."""
    async with echo_server() as port, ShapedLink(port, rate_bit_s=80_000) as link:
        _, writer = await asyncio.open_connection("127.0.0.1", link.port)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(1, 7, 16384)  # SOL_SOCKET, SO_SNDBUF
        writer.write(bytes(1_000_000))
        await asyncio.sleep(0.3)
        assert writer.transport.get_write_buffer_size() > 1_000_000 - 250_000
        writer.transport.abort()


async def test_a_frozen_link_is_silent_and_loses_nothing() -> None:
    """Protects tests of half-open connections: no byte, no close, and all of it after the thaw."""
    async with echo_server() as port, ShapedLink(port) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        link.freeze()
        writer.write(b"during")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.readexactly(6)
        link.thaw()
        assert await reader.readexactly(6) == b"during"
        writer.close()


async def test_a_cut_resets_and_the_link_serves_again() -> None:
    """Protects tests of reconnection."""
    async with echo_server() as port, ShapedLink(port) as link:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
            writer.write(b"x")
            await reader.readexactly(1)
            link.cut()
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
            writer.close()
        assert link.connections == 2
