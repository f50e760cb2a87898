"""The model alone on one thread: what every latency and rate stands on."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.rows import Row
from benchmarks.windows import DIMS, process
from edge_gateway.predictor import Predictor
from megace2_iot.examples import Embedded
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.state import base_tensors, stem_of
from megace2_iot.model.training import Example, TrainingSettings, fit
from megace2_iot.stem import Stem
from megace2_iot.tensors import encode_tensors

STEM = "a" * 64


def loaded(name: str) -> tuple[Predictor, Stem]:
    """A predictor with a seeded model of this preset on one thread, and its stem."""
    model = CrossModalTransformer.seeded(preset(name, DIMS), 0)
    predictor = Predictor("cpu", 1)
    predictor.load(STEM, model.config.to_json(), encode_tensors(base_tensors(model), {}), 1)
    return predictor, stem_of(model)


def embedded(stem: Stem, count: int) -> list[Embedded]:
    return [{m: stem.embed(m, values) for m, values in process(seed).items()} for seed in range(count)]


def best_of(times: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs, after one to warm up."""
    work()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def measure() -> list[Row]:
    rows = []
    for name in ("nano", "mult"):
        predictor, stem = loaded(name)
        samples = embedded(stem, 32)
        for batch in (1, 8, 32):
            took = best_of(7, lambda p=predictor, s=samples[:batch]: p.run(STEM, s))
            note = f"{batch / took:,.0f} windows/s"
            rows.append(Row(f"{name}: inference, batch {batch}, 50 steps", 1000 * took, "ms", note=note))
        model = CrossModalTransformer.seeded(preset(name, DIMS), 0)
        examples, settings = [Example(z, 1.0) for z in samples[:16]], TrainingSettings(epochs=1)
        took = best_of(3, lambda m=model, e=examples, s=settings: fit(m, e, s, 0))
        rows.append(Row(f"{name}: training step, batch 16", 1000 * took, "ms"))
    return [*rows, Row("one thread", torch.get_num_threads(), "threads")]
