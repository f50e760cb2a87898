"""The outbox in time: commits by themselves, sources that wait for room, and a disk that refuses."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tiers import until

from device_agent.outbox import Bounds, Outbox
from device_agent.outbox.keeping import Keeper
from megace2_iot.telemetry import Telemetry


@contextlib.asynccontextmanager
async def keeping(folder: Path, windows: int = 100) -> AsyncIterator[tuple[Outbox, Keeper, Telemetry]]:
    """An outbox that is kept while the block runs."""
    telemetry = Telemetry()
    outbox = Outbox(folder / "outbox", Bounds(windows, 1 << 20, 1e12, "block"), commit_interval=0.01)
    with contextlib.closing(outbox):
        keeper = Keeper(outbox, telemetry, 0.01)
        task = asyncio.create_task(keeper.run())
        yield outbox, keeper, telemetry
        task.cancel()
        await asyncio.wait([task])


def accept(outbox: Outbox, keeper: Keeper, count: int = 1) -> None:
    for _ in range(count):
        outbox.accept(b"a", time.time(), time.time())
    keeper.note()


async def test_what_came_is_committed_without_being_asked(tmp_path):
    """And counted then, not before."""
    async with keeping(tmp_path) as (outbox, keeper, telemetry):
        accept(outbox, keeper, 3)
        keeper.tell()
        assert telemetry.counters["windows_accepted"] == 0
        await until(lambda: telemetry.counters["windows_accepted"] == 3)
        assert (telemetry.gauges["outbox_windows"], telemetry.gauges["outbox_bytes"], outbox.unsaved) == (3, 3, False)


async def test_a_source_waits_for_room(tmp_path):
    """Until a window leaves; one that will never fit need not wait, it is shed."""
    async with keeping(tmp_path, windows=2) as (outbox, keeper, _):
        accept(outbox, keeper, 2)
        waiting = asyncio.create_task(keeper.room(1))
        await keeper.room(2 << 20)
        assert not waiting.done()
        outbox.free(1)
        keeper.note()
        async with asyncio.timeout(5):
            await waiting


async def test_a_disk_that_refuses_is_survived(tmp_path, monkeypatch, caplog):
    """It is said, the loss is counted, and the next commit is tried."""
    monkeypatch.setattr("device_agent.outbox.keeping.RETRY", 0.05)
    async with keeping(tmp_path) as (outbox, keeper, telemetry):
        db = outbox._store._opened.db
        accept(outbox, keeper)
        db.execute("PRAGMA query_only = ON")
        await until(lambda: telemetry.counters["windows_lost"] == 1)
        db.execute("PRAGMA query_only = OFF")
        accept(outbox, keeper)
        await until(lambda: telemetry.counters["windows_accepted"] == 1)
    assert "may not be written" in caplog.text
