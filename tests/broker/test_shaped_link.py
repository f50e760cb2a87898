"""The link that other tests and benchmarks trust: its rate, its small memory, and its faults."""

from __future__ import annotations

import asyncio
import contextlib
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
        assert 0.1 <= loop.time() - began < 2
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


async def test_a_cut_after_so_many_bytes_comes_once() -> None:
    """Protects tests of resumption: the link breaks in the middle of a transfer, and then is well."""
    async with echo_server() as port, ShapedLink(port) as link:
        link.cut_after(100_000)
        for survives in (False, True):
            reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
            writer.write(bytes(200_000))
            if survives:
                await reader.readexactly(200_000)
            else:
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await reader.readexactly(200_000)
            writer.close()
        assert link.cuts == 1


async def test_pieces_are_cut_as_often_as_it_says() -> None:
    """Protects the loop's test on a bad link: one message in five here takes its connection with it."""
    async with echo_server() as port, ShapedLink(port, cut_rate=0.2, seed=3) as link:
        for _ in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
            writer.write(b"x")
            with contextlib.suppress(ConnectionError):
                await reader.read(1)
            writer.close()
        assert 20 <= link.cuts <= 55  # of 200 pieces, there and back, less those that never came back


async def test_a_half_open_connection_ends_at_the_target_only() -> None:
    """Protects tests of keepalive: the server knows, the client does not; new connections flow."""
    async with echo_server() as port, ShapedLink(port) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"x")
        await reader.readexactly(1)
        link.half_open()
        writer.write(b"y")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read(1)
        _, second = again = await asyncio.open_connection("127.0.0.1", link.port)
        second.write(b"z")
        assert await again[0].readexactly(1) == b"z"
        second.close()
        writer.close()


async def test_jitter_delays_and_overtakes_nothing() -> None:
    """Protects the order of bytes: it is TCP."""
    async with echo_server() as port, ShapedLink(port, latency_s=0.01, jitter_s=0.03) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        for number in range(20):
            writer.write(bytes([number]))
            await asyncio.sleep(0.001)
        assert await reader.readexactly(20) == bytes(range(20))
        writer.close()
