"""Bytes of one packet, a 50-step window of 300/74/35 features, the error bound checked on what is sent."""

from __future__ import annotations

import pickle

import msgpack
import numpy as np
import zstandard

from benchmarks.rows import Row
from benchmarks.windows import BOUND, DIMS, MULT_WIDTH, Array, Arrays, clips, noise, packet, process
from megace2_iot.messages import FeaturePacket
from megace2_iot.quantize import Quantized, dequantize
from megace2_iot.stem import Stem

KB = 1000


def measure() -> list[Row]:
    stem = Stem.random(DIMS, MULT_WIDTH, seed=0)
    sets = {
        "white noise": [noise(seed) for seed in range(20)],
        "AR(0.9)": [process(seed) for seed in range(20)],
        "ICT-MMMO": clips(),
    }
    rows = []
    for name, windows in sets.items():
        if not windows:
            rows.append(Row("ICT-MMMO: not measured", 0, "windows", note="MEGACE2_DATA names no folder with mmmo.npz"))
            continue
        sizes = {what: np.array([size(w) for w in windows]) for what, size in RAW.items()}
        raw = float(sizes["raw float32"].mean()) / KB
        for what, target, with_stem in (("features", 14.0, None), ("Z[0] of mult", 5.0, ("0" * 64, stem))):
            sent = [send(window, with_stem) for window in windows]
            error = max(error for _, error in sent)
            rows.append(
                Row(
                    f"{name}: {what}, largest of {len(windows)}",
                    max(size for size, _ in sent) / KB,
                    "kB",
                    ceiling=raw,
                    target=target if error <= BOUND else 0.0,  # a packet beyond its bound is no packet
                    note=f"largest error {100 * error:.3f} % of a channel's range; mean "
                    f"{np.mean([size for size, _ in sent]) / KB:.2f} kB",
                )
            )
        rows += [Row(f"{name}: {what}", float(s.mean()) / KB, "kB", ceiling=raw) for what, s in sizes.items()]
    return rows


def send(window: Arrays, stem: tuple[str, Stem] | None) -> tuple[int, float]:
    """Bytes of the packet, and the largest error as a part of its channel's range, read back from those bytes."""
    data = packet("cam-01", 7, window, stem).encode()
    received = FeaturePacket.decode(data).windows[0].sequences
    error = 0.0
    for modality, values in window.items():
        wanted = values if stem is None else stem[1].embed(modality, values)
        got = dequantize(Quantized.from_fields(received[modality]))
        error = max(error, _relative(wanted, got))
    return len(data), error


def _relative(wanted: Array, got: Array) -> float:
    span = (wanted.max(axis=0) - wanted.min(axis=0)).astype(np.float64)
    off = np.abs(wanted.astype(np.float64) - got).max(axis=0)
    return float(np.divide(off, span, out=np.where(off > 0, np.inf, 0.0), where=span > 0).max())


def _zipped(window: Arrays) -> int:
    return len(zstandard.compress(msgpack.packb({m: v.tobytes() for m, v in window.items()}), 3))


RAW = {
    "raw float32": lambda window: sum(v.nbytes for v in window.values()),
    "raw float16": lambda window: sum(v.nbytes // 2 for v in window.values()),
    "pickle of float32": lambda window: len(pickle.dumps(window)),
    "msgpack and zstd of float32": _zipped,
}
