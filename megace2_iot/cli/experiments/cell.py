"""One cell of table 3: its processes, its link and its users, from start to figures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from device_agent.agent import Device
from device_agent.local import opener
from device_agent.settings import DeviceSettings
from device_agent.windows import Window
from megace2_iot.blobs import BlobStore
from megace2_iot.bus import BrokerSettings, connect
from megace2_iot.cli.experiments.clips import Extracted, RawClip
from megace2_iot.cli.experiments.cloud_only import CloudOnlySettings
from megace2_iot.cli.experiments.latency import Cell, Plan
from megace2_iot.cli.experiments.link import ShapedLink
from megace2_iot.cli.experiments.site import EDGE, SITE, broker, cloud_only, edge_cloud
from megace2_iot.cli.experiments.users import CloudUser, EdgeUser, Script, User
from megace2_iot.features import Modality
from megace2_iot.messages import LocalModel
from megace2_iot.problems import Problem

LESSONS = 96  # windows whose answers teach the local model, before the first cell
TAUGHT_WITHIN = 60.0  # s
READY_WITHIN = 60.0  # s for all users of a cell


@dataclass(frozen=True, slots=True)
class Bench:
    """What all cells share. `delay` and `cloud_delay` are one-way s; the latter is added in the cloud's arm alone."""

    folder: Path  # of the site's processes; it holds what an edge keeps from cell to cell
    preset: str
    dims: dict[Modality, int]
    clips: Sequence[RawClip]
    extracted: Sequence[Extracted]
    delay: float
    cloud_delay: float
    cores: int  # of the cloud that does everything
    replayed: Path | None = None  # the clips' folder, where extraction there is replayed on cores of its own


async def measure(bench: Bench, cell: Cell, plan: Plan, tell: Callable[[str], object]) -> dict[str, Any]:
    """Run one cell; users that are not done when the plan's time is over are cut."""
    tell("starting")
    load = os.getloadavg()[0]
    script = Script(cell.users, plan.rounds, bench.clips, bench.extracted)
    async with _behind(bench, cell) as (port, name, local), ShapedLink(port, shared=True) as link:
        url = f"mqtt://127.0.0.1:{link.port}"
        users = [_user(bench, cell, number, script, url, local=local) for number in range(cell.users)]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(user.run(), name=f"user {number}") for number, user in enumerate(users)]
            await _all_ready(users)
            link.up.rate_bit_s = link.down.rate_bit_s = cell.mbit_s * 1e6
            link.latency_s = bench.delay + (bench.cloud_delay if cell.arm == "cloud" else 0.0)
            tell(f"{plan.rounds} clips of each of {cell.users}")
            up, down, began = link.bytes_up, link.bytes_down, time.monotonic()
            script.go.set()
            await asyncio.wait(running, timeout=plan.limit)
            lasted = time.monotonic() - began
            sent, got = link.bytes_up - up, link.bytes_down - down
            timed = [dict(clip) for user in users for clip in user.clips]
            link.up.rate_bit_s = link.down.rate_bit_s = None  # goodbyes are not measured
            for task in running:
                task.cancel()
    cut = sum(clip["full"] is None for clip in timed)
    figures = {"bytes_up": sent, "bytes_down": got, "lasted": lasted, "limit": plan.limit, "rounds": plan.rounds}
    return {"clips": timed, "cut": cut, "local": local, "broker": name, "load_before": load, **figures}


def _user(bench: Bench, cell: Cell, number: int, script: Script, url: str, *, local: bool) -> User:
    if cell.arm == "cloud":
        return CloudUser(number, script, url)
    folder = bench.folder / "devices" / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    return EdgeUser(number, script, url, folder, bench.dims, local=local)


async def _all_ready(users: Sequence[User]) -> None:
    try:
        async with asyncio.timeout(READY_WITHIN):
            await asyncio.gather(*(user.ready.wait() for user in users))
    except TimeoutError:
        missing = sum(not user.ready.is_set() for user in users)
        raise Problem(f"{missing} of {len(users)} users were not ready within {READY_WITHIN:.0f} s") from None


@contextlib.asynccontextmanager
async def _behind(bench: Bench, cell: Cell) -> AsyncIterator[tuple[int, str, bool]]:
    """The broker's port, its name, and whether devices have a local model."""
    async with broker(bench.folder) as (port, name):
        if cell.arm == "cloud":
            async with cloud_only(bench.folder, _cloud_settings(bench, port)):
                yield port, name, False
            return
        async with edge_cloud(bench.folder, port, bench.preset, bench.dims):
            yield port, name, opener() is not None and await _taught(bench, port)


def _cloud_settings(bench: Bench, port: int) -> CloudOnlySettings:
    settings = CloudOnlySettings(f"mqtt://127.0.0.1:{port}", SITE.site, bench.preset, bench.dims, bench.cores)
    if bench.replayed is None:
        return settings
    seconds = tuple(each.generation for each in bench.extracted)
    return replace(settings, clips=str(bench.replayed.resolve()), seconds=seconds)


async def _taught(bench: Bench, port: int) -> bool:
    """Whether the edge has a local model: kept from an earlier cell, or distilled now from answers to the clips."""
    settings = BrokerSettings(url=f"mqtt://127.0.0.1:{port}")
    async with connect(settings, "observer") as bus:
        await bus.wait_connected(10)
        released = await bus.subscribe(SITE.edge_all(EDGE, LocalModel.kind))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await anext(released)
                return True
        folder = bench.folder / "devices" / "teacher"
        folder.mkdir(parents=True, exist_ok=True)
        device = DeviceSettings(id="teacher", edge=EDGE, state_dir=folder, train=False)
        blobs = BlobStore(folder / "blobs", device.id)
        await Device(device, SITE, settings, bench.dims, blobs, None).run(_lessons(bench.extracted))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAUGHT_WITHIN):
                await anext(released)
                return True
    return False


async def _lessons(extracted: Sequence[Extracted]) -> AsyncIterator[Window]:
    for number in range(LESSONS):
        yield extracted[number % len(extracted)].window(time.time())
        await asyncio.sleep(0.02)
