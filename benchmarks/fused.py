"""The edge's inference against a plain eager implementation of the same equations, same weights, two threads."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.plain import plain
from benchmarks.rows import Row
from benchmarks.windows import DIMS
from megace2_iot.features import MODALITIES
from megace2_iot.model.fused import FusedModel
from megace2_iot.model.fusion import CrossModalTransformer, preset

LENGTHS = ((50, 50, 50), (50, 375, 500))  # text, audio, vision
BATCHES = {1: 2.5, 8: None, 32: 1.5}  # and how many times as fast as plain
ROUNDS, PATIENCE = 7, 6.0  # of both in turn; s after which there are no more
LARGEST_ERROR = 1e-4


def measure() -> list[Row]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        return [row for name in ("mult", "paper") for row in _of_preset(name)]
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def _of_preset(name: str) -> list[Row]:
    model = CrossModalTransformer.seeded(preset(name, DIMS), 0).eval()
    fused, rows = FusedModel(model), []
    for lengths in LENGTHS:
        for batch, target in BATCHES.items():
            z = {m: torch.randn(batch, steps, model.config.width) for m, steps in zip(MODALITIES, lengths, strict=True)}
            steps = {m: torch.full((batch,), x.shape[1]) for m, x in z.items()}
            error = float((plain(model, z) - fused(z, steps)).abs().max())
            assert error < LARGEST_ERROR, error
            ours, own, theirs = _in_turn(
                lambda z=z, n=steps: fused(z, n), lambda z=z, n=steps: model(z, n), lambda z=z: plain(model, z)
            )
            what = f"{name}, T {'/'.join(map(str, lengths))}, batch {batch}: times as fast as plain"
            note = f"{1000 * ours:.1f} ms; forward {1000 * own:.1f}, plain {1000 * theirs:.1f}; error {error:.0e}"
            rows.append(Row(what, theirs / ours, "x", 1.0, target, ">=", note=note))
    one = {m: torch.randn(1, 1, model.config.width) for m in MODALITIES}
    steps = {m: torch.ones(1, dtype=torch.int64) for m in MODALITIES}

    def anew() -> None:
        fused.pack()
        fused(one, steps)

    packed, plainly = _in_turn(anew, lambda: fused(one, steps))
    rows.append(Row(f"{name}: packing new weights", 1000 * (packed - plainly), "ms", note="once a release"))
    return rows


def _in_turn(*works: Callable[[], object]) -> list[float]:
    """s of the fastest of several runs of each, one after the other, so that a busy moment hits all."""
    best = [float("inf")] * len(works)
    began = time.perf_counter()
    for number in range(ROUNDS + 1):
        for place, work in enumerate(works):
            at = time.perf_counter()
            work()
            if number:  # the first warms up
                best[place] = min(best[place], time.perf_counter() - at)
        if number and time.perf_counter() - began > PATIENCE:
            break
    return best
