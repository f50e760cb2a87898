"""The adapter's tuning: nothing is asked of the trainer where there is too little to tune on."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_gateway.labels import LabelledStore
from edge_gateway.store import EdgeStore
from edge_gateway.tuning import MIN_FIT, Tuning
from megace2_iot.labels import half
from megace2_iot.messages import ModelPointer
from megace2_iot.telemetry import Telemetry

POINTER = ModelPointer(family="f", config="{}", version=1, sha256="ab" * 32, size=1, stem="cd" * 32, stem_size=1)
Z = {"text": np.zeros((3, 2), np.float32)}


class Asked:
    """A trainer that finds the adapter no better, and counts how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self) -> Any:
        return self

    async def call(self, task: str, **arguments: Any) -> dict[str, Any]:
        self.times += 1
        return {"gate": "base", "reason": "as good"}


class Predictor:
    """Takes whatever answers."""

    def answer_with(self, stem: str, answering: object) -> None:
        return None


@pytest.mark.parametrize(("fit", "asked"), [(MIN_FIT - 1, 0), (MIN_FIT, 1)])
async def test_the_trainer_is_asked_once_there_are_enough_labels(tmp_path: Path, fit: int, asked: int) -> None:
    """Its process, with torch, is not even started for an edge without labels; the gate says what is missing."""
    trainer, store = Asked(), EdgeStore(tmp_path)
    with contextlib.closing(LabelledStore(tmp_path / "labelled.sqlite")) as labels, ThreadPoolExecutor(1) as thread:
        wanted = (seq for seq in range(1000) if half("", "cam", 1, seq) == "fit")
        for _ in range(fit):
            seq = next(wanted)
            labels.remember("cam", 1, seq, POINTER.stem, lambda: Z, 24, "", saw=False)
            labels.label("cam", 1, seq, 1.0)
        parts: Any = (labels, Predictor(), thread, trainer, store, Telemetry())
        tuning = Tuning(*parts, placement="inserted", training={}, every=0.0)
        await tuning.tune(POINTER)
    assert trainer.times == asked
    assert tuning.facts["gate"] == ("base" if asked else "blind")
    assert asked or tuning.facts["gate_reason"] == f"{fit} labelled samples, {MIN_FIT} are needed"
