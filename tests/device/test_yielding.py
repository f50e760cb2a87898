"""Training yields to sensing: its process is bounded, of low priority, and waits while the machine is too warm."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from tiers import until

from device_agent.learning import Learner, TrainingSettings
from device_agent.thermal import held_off, temperature
from megace2_iot.workers import WorkerError


def zone(folder: Path, number: int, kind: str, millidegrees: str) -> None:
    made = folder / f"thermal_zone{number}"
    made.mkdir()
    (made / "type").write_text(kind + "\n")
    (made / "temp").write_text(millidegrees + "\n")


def test_the_warmest_zone_counts(tmp_path):
    """Jetson's constant PMIC zone and unreadable zones do not; without a zone nothing is known."""
    assert temperature(tmp_path) is None
    zone(tmp_path, 0, "cpu-thermal", "51500")
    zone(tmp_path, 1, "GPU-therm", "48000")
    zone(tmp_path, 2, "PMIC-Die", "100000")
    zone(tmp_path, 3, "odd", "")
    assert temperature(tmp_path) == 51.5


@pytest.mark.parametrize(
    ("held", "warmth", "then"),
    [(False, 74.9, False), (False, 75.0, True), (True, 71.0, True), (True, 70.0, False), (True, None, False)],
)
def test_training_goes_on_only_once_it_is_cooler(held, warmth, then):
    """Between limit and limit - 5 K nothing changes, and an unknown temperature holds nothing off."""
    assert held_off(held, warmth, 75.0) is then


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_process_stops_while_it_is_warm():
    """It is stopped in the middle of its work, goes on afterwards, and ends in order even while it is stopped."""
    warmth = 40.0
    async with Learner(TrainingSettings(look_every=0.02), lambda: warmth) as learner:
        watching = asyncio.create_task(learner.watch())
        child = await learner.process()
        with pytest.raises(WorkerError, match="unknown task"):
            await child.call("nothing")
        warmth = 90.0
        await until(lambda: state_of(child.pid) == "T")
        assert learner.is_held_off
        warmth = 50.0
        await until(lambda: state_of(child.pid) != "T")
        warmth = 90.0
        await until(lambda: state_of(child.pid) == "T")
        watching.cancel()
    assert not child.alive


@pytest.mark.skipif(sys.platform != "linux", reason="bounds are Linux's")
async def test_the_process_keeps_within_its_bounds():
    """One core, the least priority, and no more memory than was given; asking for more is an error and not a crash."""
    code = (
        "import os, json, device_agent.learner as l; l.keep_within(1 << 30, 1); os.nice(l.NICENESS)\n"
        "try: bytearray(2 << 30); more = True\n"
        "except MemoryError: more = False\n"
        "batch = os.sched_getscheduler(0) == os.SCHED_BATCH\n"
        "print(json.dumps([len(os.sched_getaffinity(0)), batch, more, os.nice(0)]))"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    printed, _ = await child.communicate()
    assert printed.decode().strip() == "[1, true, false, 15]"
