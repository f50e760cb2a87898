"""Bytes and errors of each choice of adaptive compression, beside what a plain sender does, and ms to code a window.

A window is averaged in time, quantised, and packed as a device packs it. Its error is taken against the rows before all
of that, as a part of each channel's range in the window; a row that was averaged stands for all of its group.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import zstandard

from benchmarks.packet import KB, RAW
from benchmarks.rows import Row
from benchmarks.windows import BOUND, DIMS, MULT_WIDTH, Array, Arrays, clips
from device_agent.alignment import Aligner, whole
from device_agent.compression import CHEAP_LEVEL, LADDER, THOROUGH_LEVEL, Choice, thin
from megace2_iot import codec
from megace2_iot.datasets.synthetic import synthetic
from megace2_iot.messages import FeaturePacket, PacketWindow
from megace2_iot.quantize import Quantized, dequantize, quantize
from megace2_iot.stem import Stem

try:
    import blosc2
except ImportError:
    blosc2 = None

Code = Callable[[Arrays], bytes | int]
PASSES = 5  # over all windows; the fastest counts
LONGEST = 10.0  # s of a window of a clip
MANTISSA = 23  # bits of a float32

CHOICES = [Choice(rung.name, rung.bound(BOUND), CHEAP_LEVEL, rung.thin, False) for rung in LADDER if not rung.shed]
CHOICES.insert(3, Choice("bound", BOUND, THOROUGH_LEVEL, 1, False))


def measure() -> list[Row]:
    stem = Stem.random(DIMS, MULT_WIDTH, seed=0)
    real = clips()
    corpus = synthetic(0, streams=2, samples=50).samples
    sets: dict[str, list[Arrays]] = {
        "ICT-MMMO": real,
        "ICT-MMMO, Z[0] of mult": [{m: stem.embed(m, values) for m, values in window.items()} for window in real],
        "clips": extracted(),
        "built-in corpus": [{m: features.values for m, features in sample.features.items()} for sample in corpus],
    }
    return [row for name, windows in sets.items() for row in _of_set(name, windows)]


def _of_set(name: str, windows: Sequence[Arrays]) -> list[Row]:
    if not windows:
        return [Row(f"{name}: not measured", 0, "windows", note="no such files in MEGACE2_DATA, or no `av`")]
    raw = float(np.mean([RAW["raw float32"](window) for window in windows])) / KB
    rows = [Row(f"{name}: windows", len(windows), "", note=_shapes(windows))]
    for choice in CHOICES:
        size, took = timed(lambda window, choice=choice: coded(window, choice), windows)
        largest, mean = error(pair for window in windows for pair in received(window, choice))
        held = choice.thin > 1 or largest <= choice.relative_bound * (1 + 1e-6)
        rows.append(
            Row(
                f"{name}: {choice.rung}, bound {100 * choice.relative_bound:g} %, thin {choice.thin}, "
                f"zstd {choice.zstd_level}",
                size / KB,
                "kB",
                ceiling=raw,
                target=None if held else 0.0,  # beyond its bound it is no choice
                note=f"error {100 * largest:.2f} % at most, {100 * mean:.3f} % on average; {1000 * took:.2f} ms",
            )
        )
    for what, code in {**RAW, **PLAIN}.items():
        size, took = timed(code, windows)
        note = f"{1000 * took:.2f} ms"
        if what in LOSSY:
            largest, mean = error((values, LOSSY[what](values)) for window in windows for values in window.values())
            note = f"error {100 * largest:.2f} % at most, {100 * mean:.3f} % on average; {note}"
        rows.append(Row(f"{name}: {what}", size / KB, "kB", ceiling=raw, note=note))
    if blosc2 is None:
        rows.append(Row(f"{name}: blosc2", 0, "kB", note="not installed"))
    return rows


def _shapes(windows: Sequence[Arrays]) -> str:
    modalities = [m for m in DIMS if any(m in window for window in windows)]
    shapes = {m: [window[m].shape for window in windows if m in window] for m in modalities}
    return ", ".join(f"{m} {np.mean([t for t, _ in s]):.0f} x {s[0][1]} in {len(s)}" for m, s in shapes.items())


def timed(code: Code, windows: Sequence[Arrays]) -> tuple[float, float]:
    """Mean bytes and seconds of a window."""
    best, size = float("inf"), 0
    for _ in range(PASSES):
        began = time.perf_counter()
        made = [code(window) for window in windows]
        best = min(best, time.perf_counter() - began)
        size = sum(one if isinstance(one, int) else len(one) for one in made)
    return size / len(windows), best / len(windows)


def coded(window: Arrays, choice: Choice) -> bytes:
    """The packet of one window."""
    sequences = {m: quantize(thin(v, choice.thin), choice.relative_bound).to_fields() for m, v in window.items()}
    packed = PacketWindow(seq=7, captured_at=1.7e9, sequences=sequences, quality={"audio_snr": 20.0})
    packet = FeaturePacket(device="cam-01", epoch=1, sent_at=1.7e9, stage="features", windows=(packed,))
    return codec.encode(packet.model_dump(), level=choice.zstd_level)


def received(window: Arrays, choice: Choice) -> Iterator[tuple[Array, Array]]:
    """The rows of each modality, and what they are once they were sent."""
    sequences = FeaturePacket.decode(coded(window, choice)).windows[0].sequences
    for modality, values in window.items():
        got = dequantize(Quantized.from_fields(sequences[modality]))
        yield values, np.repeat(got, choice.thin, axis=0)[: len(values)]


def error(pairs: Iterable[tuple[Array, Array]]) -> tuple[float, float]:
    """The largest and the mean error of the values of channels that move, as parts of their channel's range."""
    parts = []
    for values, got in pairs:
        span = np.ptp(values.astype(np.float64), axis=0)
        moves = span > 0
        parts.append((np.abs(got.astype(np.float64) - values)[:, moves] / span[moves]).ravel())
    every = np.concatenate(parts)
    return float(every.max()), float(every.mean())


def extracted() -> list[Arrays]:
    """Features of the clips of $MEGACE2_DATA/clips, as a device makes them; none without them or without `av`."""
    folder = Path(os.environ.get("MEGACE2_DATA", "")) / "clips"
    try:
        from device_agent.extraction.extractors import make_extractors
        from device_agent.extraction.settings import SenseSettings
        from device_agent.media.clips import clips_in, read_clip
    except ImportError:
        return []
    if not folder.is_dir():
        return []
    extractors = make_extractors(SenseSettings())
    windows = []
    for clip in clips_in(folder):
        aligner = Aligner((), whole(LONGEST), lateness=0.0)
        cut = []
        for chunk in read_clip(clip):
            for modality, extractor in extractors.items():
                if rows := extractor.push(chunk):
                    cut += aligner.push(modality, rows)
        for modality, extractor in extractors.items():
            if rows := extractor.flush():
                cut += aligner.push(modality, rows)
        windows += [{m: rows.values for m, rows in window.rows.items()} for window in cut + aligner.flush()]
    return windows


def _halves_zipped(window: Arrays) -> int:
    return sum(len(zstandard.compress(v.astype(np.float16).tobytes(), 3)) for v in window.values())


def _blosc(values: Array, bits: int) -> bytes:
    """Channel by channel, as that is what its filters are for; `bits` of mantissa are kept, 23 are all."""
    filters, meta = [blosc2.Filter.BITSHUFFLE], [0]
    if bits < MANTISSA:
        filters, meta = [blosc2.Filter.TRUNC_PREC, *filters], [bits, 0]
    turned = np.ascontiguousarray(values.T)
    return blosc2.compress2(turned, codec=blosc2.Codec.ZSTD, clevel=5, typesize=4, filters=filters, filters_meta=meta)


def _unblosc(values: Array, bits: int) -> Array:
    return np.frombuffer(blosc2.decompress2(_blosc(values, bits)), np.float32).reshape(values.shape[::-1]).T


PLAIN: dict[str, Code] = {"float16 and zstd": _halves_zipped}
LOSSY: dict[str, Callable[[Array], Array]] = {
    "raw float16": lambda values: values.astype(np.float16),
    "float16 and zstd": lambda values: values.astype(np.float16),
}
if blosc2 is not None:
    PLAIN["blosc2, bit shuffle and zstd"] = lambda window: sum(len(_blosc(v, MANTISSA)) for v in window.values())
    PLAIN["blosc2 with 6 bits of mantissa"] = lambda window: sum(len(_blosc(v, 6)) for v in window.values())
    LOSSY["blosc2 with 6 bits of mantissa"] = lambda values: _unblosc(values, 6)
