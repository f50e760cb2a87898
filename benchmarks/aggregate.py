"""16 models of 12.6 M parameters averaged: equation (4) over flat vectors, in time and memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from benchmarks.rows import Row
from cloud_aggregator.aggregator import Arrival, Folded, State, fold, start
from megace2_iot.parameters import Layout, ModelUpdate, RunningMean

MODELS, PARAMETERS, GROUPS = 16, 12_602_551, 10
MIB = 1 << 20

Vector = npt.NDArray[np.float32]


def measure() -> list[Row]:
    vectors, layout = _models(), _layout()
    counts = dict.fromkeys(layout.groups, 100.0)
    total = np.zeros(PARAMETERS, np.float32)
    raw = _best(lambda: _plain_sum(vectors, total), 4)
    read = _best(lambda: [float(vector.sum()) for vector in vectors], 4)

    def mean() -> RunningMean:
        running = RunningMean(layout)
        for number, vector in enumerate(vectors, 1):
            running.add(vector, {name: number * n for name, n in counts.items()})
        return running

    averaged = _best(mean, 6)
    state = _latched(layout, vectors, counts)
    arrival = _arrival(layout, vectors, counts)
    folded = _best(lambda: _fold(state, arrival), 6)
    note = f"plain numpy adds the 16 arrays unweighted in {1000 * raw:.0f} ms; reading them takes {1000 * read:.0f} ms"
    return [
        Row("running mean of 16", averaged, "s", ceiling=raw, target=0.10, note=note),
        Row("running mean of 16, memory beyond the inputs", _peak(mean), "MiB", target=60.0),
        Row("one latched fold among 16 edges", folded, "s", ceiling=raw, target=0.10, note="w_i, checks, mean of all"),
        Row(
            "one latched fold, memory beyond the inputs",
            _peak(lambda: _fold(state, arrival)) - PARAMETERS * 4 / MIB,
            "MiB",
            target=60.0,
            note="without the edge's w_i itself, which is the sixteenth model and stays",
        ),
    ]


def _layout() -> Layout:
    size = PARAMETERS // GROUPS
    shapes = {f"group{number:02d}.weight": (size,) for number in range(GROUPS - 1)}
    return Layout({**shapes, f"group{GROUPS - 1:02d}.weight": (PARAMETERS - size * (GROUPS - 1),)})


def _models() -> list[Vector]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(PARAMETERS, np.float32) for _ in range(MODELS)]


def _plain_sum(vectors: list[Vector], total: Vector) -> None:
    total[:] = 0
    for vector in vectors:
        np.add(total, vector, out=total)


def _latched(layout: Layout, vectors: list[Vector], counts: dict[str, float]) -> State:
    """A state in which every vector is an edge's w_i, without a second copy of them."""
    state = start("latched", layout, vectors[0], 1)
    first, _ = fold(state, Arrival("edge-00", ModelUpdate(1, counts, np.zeros_like(vectors[0])), "0", 1.0), vectors[0])
    edge = first.edges["edge-00"]
    edges = {f"edge-{number:02d}": replace(edge, model=vector) for number, vector in enumerate(vectors)}
    return replace(state, edges=edges)


def _arrival(layout: Layout, vectors: list[Vector], counts: dict[str, float]) -> Arrival:
    delta = np.full(layout.size, 1e-3, np.float32)
    return Arrival("edge-07", ModelUpdate(1, counts, delta), "1", 2.0)


def _fold(state: State, arrival: Arrival) -> State:
    after, outcome = fold(state, arrival, state.vector)
    assert isinstance(outcome, Folded), outcome
    return after


def _best(work: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def _peak(work: Callable[[], object]) -> float:
    """MiB allocated at most while `work` runs."""
    tracemalloc.start()
    try:
        kept = work()
        del kept
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()
