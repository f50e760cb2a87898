"""The learner that the devices of one process share: it outlives whoever leaves while it trains."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from device_agent.learning import Learner
from megace2_iot.blobs import digest
from megace2_iot.examples import pack
from megace2_iot.messages import RoundStart
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.state import base_tensors
from megace2_iot.tensors import encode_tensors

MODEL = CrossModalTransformer.seeded(preset("nano", {"text": 4, "audio": 3, "vision": 2}), 0)
BASE, CONFIG = encode_tensors(base_tensors(MODEL), {}), MODEL.config.to_json()
SCORES = np.ones(64, np.float32)


def start(epochs: int) -> RoundStart:
    return RoundStart(
        round=1,
        family="f",
        base_version=1,
        sha256=digest(BASE),
        size=len(BASE),
        participants=("a",),
        deadline=60.0,
        training={"epochs": epochs},
    )


def examples() -> dict[str, Any]:
    return pack([{"text": np.ones((30, 16), np.float32)} for _ in SCORES])


async def test_a_device_that_leaves_while_it_trains_takes_nobody_along():
    """Its training cannot be undone halfway, so the child ends; the next round has a new one."""
    async with Learner() as learner, asyncio.timeout(60):
        leaving = asyncio.create_task(learner.train(BASE, start(1_000_000), CONFIG, examples(), SCORES))
        await asyncio.sleep(0.5)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        result = await learner.train(BASE, start(1), CONFIG, examples(), SCORES)
        assert np.isfinite(result["delta"]).all()
        assert result["num_examples"]
