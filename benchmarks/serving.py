"""The edge's inference against a plain eager implementation of the same equations, same weights, two threads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.plain import plain
from benchmarks.rows import Row, in_turn
from benchmarks.windows import DIMS
from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.fused import FusedModel
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.graph_model import GraphModel

LENGTHS = ((50, 50, 50), (50, 375, 500))  # text, audio, vision
BATCHES = {1: 2.5, 8: None, 32: 1.5}  # and how many times as fast as plain
HALF = 2.0  # times as fast, in bfloat16 with `paper` at the largest batch
LARGEST_ERROR = 1e-4
THREADS = 2

Streams = Mapping[Modality, Tensor]


def measure() -> list[Row]:
    with threads(THREADS):
        rows = [row for name in ("mult", "paper") for row in _of_preset(name)]
    return [*rows, *_memory()]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch with so many."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def _of_preset(name: str) -> list[Row]:
    model = CrossModalTransformer.seeded(preset(name, DIMS), 0).eval()
    graph, fused, half = GraphModel(model, THREADS), FusedModel(model), FusedModel(model, torch.bfloat16)
    rows = []
    for lengths in LENGTHS:
        for batch, target in BATCHES.items():
            z, steps = streams(batch, lengths, model.config.width)
            exact = plain(model, z)
            errors = [float((exact - path(z, steps)).abs().max()) for path in (graph, fused)]
            assert max(errors) < LARGEST_ERROR, errors
            rounded = float((exact - half(z, steps)).abs().max())
            ours, torchs, halves, theirs = in_turn(
                lambda z=z, n=steps: graph(z, n),
                lambda z=z, n=steps: fused(z, n),
                lambda z=z, n=steps: half(z, n),
                lambda z=z: plain(model, z),
            )
            what = f"{name}, T {'/'.join(map(str, lengths))}, batch {batch}: times as fast as plain"
            note = f"{1000 * ours:.1f} ms, plain {1000 * theirs:.1f}; torch {theirs / torchs:.2f} x; {errors[0]:.0e}"
            rows.append(Row(what, theirs / ours, "x", 1.0, target, ">=", note=note))
            wanted = HALF if name == "paper" and batch == max(BATCHES) and has_bfloat16() else None
            note = f"{1000 * halves:.1f} ms; {rounded:.0e} off, of scores of {float(exact.abs().mean()):.2f}"
            rows.append(Row("   the same by torch in bfloat16", theirs / halves, "x", 1.0, wanted, ">=", note=note))
    one = streams(1, (1, 1, 1), model.config.width)
    for label, path in (("ONNX Runtime", graph), ("torch", fused)):

        def anew(path: GraphModel | FusedModel = path) -> None:
            path.pack()
            path(*one)

        packed, plainly = in_turn(anew, lambda path=path: path(*one))
        rows.append(
            Row(f"{name}: packing new weights, {label}", 1000 * (packed - plainly), "ms", note="once a release")
        )
    return rows


def streams(batch: int, lengths: tuple[int, ...], width: int) -> tuple[Streams, Streams]:
    """Z[0] of noise, and its true lengths: nothing is padded."""
    z: Streams = {m: torch.randn(batch, steps, width) for m, steps in zip(MODALITIES, lengths, strict=True)}
    return z, {m: torch.full((batch,), x.shape[1]) for m, x in z.items()}


def has_bfloat16() -> bool:
    """Whether the processor multiplies in it."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


# -- memory: the peak of a process of its own -----------------------------------------
PROBE = """
from pathlib import Path
import torch
from benchmarks.plain import plain
from benchmarks.serving import streams
from benchmarks.windows import DIMS
from megace2_iot.model.fused import FusedModel
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.graph_model import GraphModel
torch.set_num_threads(1)
model = CrossModalTransformer.seeded(preset({preset!r}, DIMS), 0).eval()
path = {path}
def of_process(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024
with torch.inference_mode():
    z, steps = streams(32, {lengths!r}, model.config.width)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = of_process("VmRSS")
    path(z, steps)
print(of_process("VmHWM") - before)
"""
PATHS = {
    "ONNX Runtime": "GraphModel(model)",
    "torch": "FusedModel(model)",
    "torch in bfloat16": "FusedModel(model, torch.bfloat16)",
    "plain": "lambda z, steps: plain(model, z)",
}


def _memory() -> list[Row]:
    rows = list[Row]()
    if not Path("/proc/self/clear_refs").exists():
        return rows  # only Linux lets a process begin its peak anew
    for name in ("mult", "paper"):
        for lengths in LENGTHS:
            for label, path in PATHS.items():
                code = PROBE.format(preset=name, path=path, lengths=lengths)
                done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
                what = f"{name}, T {'/'.join(map(str, lengths))}, batch 32, {label}: peak of memory"
                rows.append(Row(what, float(done.stdout), "MiB", note="beyond model and input"))
    return rows
