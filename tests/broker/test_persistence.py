"""Sessions on disk: what a client was told is kept, after an orderly end, a SIGKILL, and in a broken file."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from wire import Wire, wire5

from broker import BrokerError, EmbeddedSettings, embedded_broker
from broker.packets import Pubcomp, Publish, Pubrec, Pubrel, Request

CHILD = """
import asyncio, sys
from pathlib import Path
from broker import EmbeddedSettings, embedded_broker

async def main():
    async with embedded_broker(EmbeddedSettings(port=int(sys.argv[2]), persistence=Path(sys.argv[1]))) as broker:
        print(broker.port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def kept(tmp_path: Path) -> EmbeddedSettings:
    return EmbeddedSettings(persistence=tmp_path / "broker.db", sys_interval=0)


@asynccontextmanager
async def killed(path: Path, port: int = 0) -> AsyncIterator[int]:
    """The port of a broker in a child process, which SIGKILL ends."""
    arguments = (sys.executable, "-c", CHILD, str(path), str(port))
    child = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert child.stdout is not None
        yield int(await child.stdout.readline())
    finally:
        child.kill()
        await child.wait()


async def test_a_restart_changes_nothing_for_a_session(kept: EmbeddedSettings) -> None:
    """Protects a session's whole state: subscriptions with their options, what waits, its properties and order."""
    async with embedded_broker(kept) as broker, wire5(broker.port, "out") as out:
        async with wire5(broker.port, "in", session_expiry=60) as reader:
            await reader.subscribe(Request("q/+", 2, retain_as_published=True), subscription_ids=(5,))
            await reader.subscribe(("other", 1))
        for n in range(20):
            await out.publish("q/x", b"%d" % n, 1 + n % 2, content_type="n", message_expiry=100, retain=n == 19)
    async with (
        embedded_broker(kept) as broker,
        wire5(broker.port, "in", clean_session=False, session_expiry=60) as reader,
    ):
        assert reader.connack.session_present
        assert broker.stats().subscriptions == 2
        seen = [await reader.receive() for _ in range(20)]
        assert [(m.payload, m.qos, m.retain) for m in seen] == [(b"%d" % n, 1 + n % 2, n == 19) for n in range(20)]
        assert {m.properties.subscription_ids for m in seen} == {(5,)}
        assert {m.properties.content_type for m in seen} == {"n"}
        assert all(90 <= (m.properties.message_expiry or 0) <= 100 for m in seen)


async def test_qos_2_survives_a_restart_in_every_state(kept: EmbeddedSettings) -> None:
    """Protects exactly-once over a restart: the publisher's unreleased id, and the subscriber's two halves."""
    async with (
        embedded_broker(kept) as broker,
        Wire(broker.port, "in", clean_session=False) as reader,
        Wire(broker.port, "out", clean_session=False) as out,
    ):
        await reader.subscribe(("t", 2))
        for n in (1, 2):
            await out.send(Publish("t", b"%d" % n, 2, packet_id=n))
            assert await out.expect(Pubrec) == Pubrec(n)
        first, second = [await reader.expect(Publish) for _ in range(2)]
        await reader.send(Pubrec(first.packet_id))
        assert await reader.expect(Pubrel) == Pubrel(first.packet_id)
    async with embedded_broker(kept) as broker:
        async with Wire(broker.port, "out", clean_session=False) as out:
            await out.send(Publish("t", b"1", 2, dup=True, packet_id=1), Pubrel(1), Pubrel(2))
            assert [await out.next() for _ in range(3)] == [Pubrec(1), Pubcomp(1), Pubcomp(2)]
        async with Wire(broker.port, "in", clean_session=False) as reader:
            assert await reader.next() == Pubrel(first.packet_id)
            assert await reader.expect(Publish) == Publish("t", b"2", 2, dup=True, packet_id=second.packet_id)
            await reader.send(Pubcomp(first.packet_id), Pubrec(second.packet_id))
            assert await reader.expect(Pubrel) == Pubrel(second.packet_id)
            await reader.send(Pubcomp(second.packet_id))
    async with embedded_broker(kept) as broker:
        assert (broker.stats().queued, broker.stats().sessions) == (0, 2)


async def test_retained_messages_survive_with_their_properties(kept: EmbeddedSettings) -> None:
    """Protects retained state: the last of each topic, of any QoS, cleared ones gone, $SYS not among them."""
    async with embedded_broker(kept) as broker, wire5(broker.port, "out") as out:
        for topic, payload, qos in (
            ("a", b"old", 1),
            ("a", b"new", 2),
            ("b", b"gone", 1),
            ("b", b"", 1),
            ("c", b"0", 0),
        ):
            await out.publish(topic, payload, qos, retain=True, user=(("k", topic),))
        await out.publish("end")
    async with embedded_broker(kept) as broker, wire5(broker.port, "in") as reader:
        await reader.subscribe(("#", 2))
        seen = {m.topic: (m.payload, m.qos, m.properties.user) for m in [await reader.receive() for _ in range(2)]}
        assert seen == {"a": (b"new", 2, (("k", "a"),)), "c": (b"0", 0, (("k", "c"),))}
        assert broker.stats().retained == 2


async def test_a_payload_is_stored_once_and_leaves_with_its_last_reader(kept: EmbeddedSettings) -> None:
    """Protects the disk: ten sessions wait for one copy, and nothing is left when all have it."""
    assert kept.persistence is not None
    names = [f"in-{n}" for n in range(10)]
    async with embedded_broker(kept) as broker:
        for name in names:
            async with Wire(broker.port, name, clean_session=False) as reader:
                await reader.subscribe(("t", 1))
        async with Wire(broker.port, "out") as out:
            await out.publish("t", bytes(50_000))
    assert rows(kept.persistence) == {"message": 1, "session": 10, "subscription": 10, "delivery": 10}
    async with embedded_broker(kept) as broker:
        for name in names[:9]:
            async with Wire(broker.port, name, clean_session=False) as reader:
                await reader.receive()
        async with Wire(broker.port, names[9]):  # starts anew
            pass
    assert rows(kept.persistence) == {"session": 9, "subscription": 9}


def rows(path: Path) -> dict[str, int]:
    tables = ("message", "session", "subscription", "delivery", "incoming", "retained")
    database = sqlite3.connect(path)
    counts = {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    database.close()
    return {table: count for table, count in counts.items() if count}


async def test_a_session_that_ends_with_its_connection_is_not_kept(kept: EmbeddedSettings) -> None:
    """Protects the disk from clients that do not care."""
    assert kept.persistence is not None
    async with embedded_broker(kept) as broker, Wire(broker.port, "in") as reader, Wire(broker.port, "out") as out:
        await reader.subscribe(("t", 2))
        await out.publish("t", b"x", qos=2)
        await reader.receive()
    assert rows(kept.persistence) == {}


async def test_expiry_goes_on_while_the_broker_is_down(kept: EmbeddedSettings) -> None:
    """Protects from sessions and messages that live for ever because the broker was restarted in between."""
    assert kept.persistence is not None
    async with embedded_broker(kept) as broker, wire5(broker.port, "out") as out:
        for name, expiry in (("brief", 100), ("long", 5000)):
            async with wire5(broker.port, name, session_expiry=expiry) as reader:
                await reader.subscribe(("t", 1))
        await out.publish("t", b"stale", message_expiry=100)
        await out.publish("t", b"fresh", message_expiry=5000)
    with sqlite3.connect(kept.persistence) as database:
        database.execute("UPDATE session SET left_at = left_at - 1000")
        database.execute("UPDATE message SET expires_at = expires_at - 1000")
    database.close()
    async with embedded_broker(kept) as broker:
        for name, present in (("brief", False), ("long", True)):
            async with wire5(broker.port, name, clean_session=False) as reader:
                assert reader.connack.session_present is present
                if present:
                    assert (await reader.receive()).payload == b"fresh"


async def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    """Protects the promise of PUBACK and PUBREC: killed at any moment, again and again, nothing of it is lost."""
    path, accepted, port = tmp_path / "broker.db", list[bytes](), 0
    for kill in range(4):
        async with killed(path, port) as port:
            if kill == 0:
                async with Wire(port, "in", clean_session=False) as reader:
                    await reader.subscribe(("t", 2))
            async with Wire(port, "out", clean_session=False) as out:
                sent = [b"%d-%d" % (kill, n) for n in range(400)]
                packets = [
                    Publish("t", text + bytes(2000), 1 + n % 2, packet_id=400 * kill + n + 1)
                    for n, text in enumerate(sent)
                ]
                sending = asyncio.create_task(out.send(*packets))
                for _ in range(50 + 60 * kill):
                    answer = await out.next()
                    accepted.append(sent[(answer.packet_id - 1) % 400])
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    async with killed(path, port) as port, Wire(port, "in", clean_session=False) as reader:
        seen = []
        while set(accepted) - set(seen):
            seen.append(bytes((await reader.receive()).payload).rstrip(b"\0"))
        assert len(seen) == len(set(seen))


async def test_a_broken_file_is_moved_aside(kept: EmbeddedSettings, caplog: pytest.LogCaptureFixture) -> None:
    """Protects the start: the broker runs without its old sessions, says so, and keeps the file for whoever looks."""
    assert kept.persistence is not None
    kept.persistence.write_bytes(b"not a database" * 1000)
    async with embedded_broker(kept) as broker, Wire(broker.port, "dev", clean_session=False) as device:
        await device.publish("t", b"x", retain=True)
    assert "is broken" in caplog.text
    assert [len(path.read_bytes()) for path in kept.persistence.parent.glob("*.broken-*")] == [14_000]
    assert rows(kept.persistence) == {"message": 1, "session": 1, "retained": 1}


async def test_a_file_has_one_broker_and_one_format(kept: EmbeddedSettings) -> None:
    """Protects a file from two brokers at once, and from an older program that would misread it."""
    assert kept.persistence is not None
    async with embedded_broker(kept):
        with pytest.raises(BrokerError, match="in use by another broker"):
            async with embedded_broker(kept):
                pass
    database = sqlite3.connect(kept.persistence)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(BrokerError, match="format 99"):
        async with embedded_broker(kept):
            pass


async def test_a_disk_that_refuses_stops_the_broker(kept: EmbeddedSettings) -> None:
    """Protects from a promise that cannot be kept: no PUBACK for what was not stored, and an end that says why."""

    async def run() -> None:
        async with embedded_broker(kept) as broker, Wire(broker.port, "in", clean_session=False) as reader:
            await reader.subscribe(("t", 1))
            await asyncio.to_thread(spoil, broker)
            await reader.send(Publish("t", b"x", 1, packet_id=1))
            with pytest.raises(ConnectionError):
                await reader.next()

    with pytest.raises(BrokerError, match="cannot be kept"):
        await run()


def spoil(broker: object) -> None:
    """Take a table away under the broker's feet, as a full disk would."""
    journal = broker._router.journal
    journal._thread.submit(journal._database.execute, "DROP TABLE delivery").result()


async def test_shared_messages_are_passed_on_after_a_restart(kept: EmbeddedSettings) -> None:
    """Protects `$share` over a restart: what waits for a group is known to be the group's."""
    async with embedded_broker(kept) as broker:
        async with wire5(broker.port, "one", session_expiry=60) as one:
            await one.subscribe(("$share/g/t", 1))
        async with wire5(broker.port, "out") as out:
            await out.publish("t", b"work")
    async with embedded_broker(kept) as broker, wire5(broker.port, "two") as two:
        await two.subscribe(("$share/g/t", 1))
        async with wire5(broker.port, "one", clean_session=False):
            pass  # it asks for no session any more, and acknowledges nothing
        assert (await two.receive()).payload == b"work"
