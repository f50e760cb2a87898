"""Adaptive compression over a real link: precision follows what it carries, delay alone changes nothing."""

import asyncio

import numpy as np
import pytest
from link import ShapedLink
from tiers import Lab, running, until

from device_agent.compression import RUNGS
from device_agent.windows import Window
from megace2_iot.features import Features
from megace2_iot.messages import Prediction

DIMS = {"text": 24, "audio": 12, "vision": 10}
QUIET = {"rounds": False, "adapters": False}


def windows(count, pause):
    """Windows of some 12 kB once coded at 2 %, as they come."""
    rng = np.random.default_rng(0)

    async def stream():
        for _ in range(count):
            await asyncio.sleep(pause)
            yield Window({m: Features(rng.standard_normal((250, d)).astype(np.float32)) for m, d in DIMS.items()})

    return stream()


@pytest.mark.parametrize(
    ("rate_kbit_s", "delay", "rungs"),
    [(None, 0.1, {"finest"}), (400, 0.0, {"bound", "half", "quarter"})],
    ids=["far-but-fast", "slow"],
)
async def test_precision_follows_the_link(run_embedded, make_lab, rate_kbit_s, delay, rungs):
    """A slow link gets coarser packets before anything is shed; a distant one that is fast gets the finest."""
    async with run_embedded() as broker:
        near: Lab = make_lab(broker.url)
        rate = None if rate_kbit_s is None else rate_kbit_s * 1e3
        async with ShapedLink(broker.port, rate_bit_s=rate, latency_s=delay) as link:
            far = Lab(f"mqtt://127.0.0.1:{link.port}", near.folder)
            edge = near.edge(learning=QUIET, scheduling={"relative_bound": 0.05, "stages": ("features",)})
            device = far.device()
            async with near.listening() as ear, running(near.cloud(), edge):
                async with asyncio.timeout(60):
                    await device.run(windows(20, 0.1))
                await until(lambda: len({p.seq for p in ear.of(Prediction)}) == 20)
        counted = {r: n for r in RUNGS if (n := device.telemetry.counters[f"packets_coded_{r}"])}
        assert rungs & set(counted), counted
        assert set(counted) <= {"finest", "fine", *rungs}, counted
        assert device.telemetry.counters["windows_shed_link"] == 0
