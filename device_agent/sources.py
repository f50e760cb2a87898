"""Sources of windows: data sets and recorded streams, played on their own clock times a speed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace

from device_agent.windows import Window
from megace2_iot.datasets import Sample
from megace2_iot.features import Modality

GAP = 1.0  # s between the last window of a group and the first of the next


def timeline(samples: Sequence[Sample]) -> list[tuple[float, Sample]]:
    """Samples with their due times in s: each group on its own clock, one group after another."""
    due: list[tuple[float, Sample]] = []
    offset, group, last = 0.0, None, 0.0
    for sample in samples:
        if sample.group != group:
            offset, group = (last + GAP if due else 0.0) - sample.start, sample.group
        last = max(last, offset + sample.start)
        due.append((last, sample))
    return due


def duration(samples: Sequence[Sample]) -> float:
    """Seconds that a replay at speed 1 takes."""
    return timeline(samples)[-1][0] if samples else 0.0


def window_of(sample: Sample, without: Iterable[Modality] = ()) -> Window:
    """A train row's score is a label, a test row's only the truth that its answer is compared with."""
    missing = set(without)
    return Window(
        features={m: f for m, f in sample.features.items() if m not in missing},
        label=sample.score if sample.split == "train" else None,
        truth=sample.score if sample.split == "test" else None,
        group=sample.group,
        features_saw_label=sample.features_saw_label,
        stem=sample.stem,
    )


async def replay(
    samples: Sequence[Sample], speed: float, *, without: Iterable[Modality] = (), repeat: bool = False
) -> AsyncIterator[Window]:
    """Yield each sample's window when it is due; `speed` 0 plays as fast as it is taken."""
    missing = tuple(without)
    while True:
        began = time.monotonic()
        for due, sample in timeline(samples):
            if speed > 0:
                await asyncio.sleep(max(0.0, began + due / speed - time.monotonic()))
            else:
                await asyncio.sleep(0)
            yield replace(window_of(sample, missing), captured_at=time.time())
        if not repeat:
            return
