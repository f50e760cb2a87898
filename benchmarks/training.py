"""A training step against a plain eager implementation of the same equations, with the same dropouts, two threads."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.plain import plain
from benchmarks.rows import Row, in_turn
from benchmarks.serving import streams, threads
from benchmarks.windows import DIMS
from megace2_iot.model.fusion import CrossModalTransformer, preset

CASES = (((50, 50, 50), 16), ((50, 50, 50), 32), ((50, 375, 500), 4))
WANTED = 1.5  # times as fast as plain


def measure() -> list[Row]:
    with threads(2):
        return [row for name in ("nano", "mult", "paper") for row in _of_preset(name)]


def _of_preset(name: str) -> list[Row]:
    model = CrossModalTransformer.seeded(preset(name, DIMS), 0).train()
    fast, slow = torch.optim.AdamW(model.parameters(), 1e-9, fused=True), torch.optim.AdamW(model.parameters(), 1e-9)
    rows = []
    for lengths, batch in CASES:
        z, steps = streams(batch, lengths, model.config.width)
        truth = torch.randn(batch, 1)

        def step(optimiser: torch.optim.Optimizer, answer: Callable[[], Tensor], truth: Tensor = truth) -> None:
            optimiser.zero_grad()
            F.l1_loss(answer(), truth).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.8)
            optimiser.step()

        ours, theirs = in_turn(
            lambda z=z, n=steps, step=step: step(fast, lambda: model(z, n)),
            lambda z=z, step=step: step(slow, lambda: plain(model, z)),
        )
        what = f"{name}, T {'/'.join(map(str, lengths))}, batch {batch}: times as fast as plain"
        note = f"{1000 * ours:.1f} ms, plain {1000 * theirs:.1f}"
        rows.append(Row(what, theirs / ours, "x", 1.0, WANTED, ">=", note=note))
    return rows
