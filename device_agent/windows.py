"""A window of features on its way from a source, through the outbox, into a packet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from device_agent.compression import thin
from device_agent.noise import noisy
from megace2_iot import codec
from megace2_iot.features import Features, Modality
from megace2_iot.messages import PacketWindow
from megace2_iot.quantize import quantize
from megace2_iot.stem import Stem


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What one window holds; `label` may train, `truth` is only compared with the answer and never sent."""

    features: Mapping[Modality, Features]
    captured_at: float = field(default_factory=time.time)  # unix s
    label: float | None = None
    truth: float | None = None
    group: str = ""
    features_saw_label: bool = False
    quality: Mapping[str, float] = field(default_factory=dict)
    extraction: float = 0.0  # s that the source spent on making the features
    stem: str | None = None  # of a recorded stream: the features are Z[0] of this stem already


def to_record(window: Window) -> bytes:
    """The outbox's bytes: features rather than Z[0], so that what waited hours is embedded by the stem of today."""
    return codec.encode(
        {
            "features": {m: {"values": f.values, "rate": f.rate, "start": f.start} for m, f in window.features.items()},
            "captured_at": window.captured_at,
            "label": window.label,
            "truth": window.truth,
            "group": window.group,
            "saw": window.features_saw_label,
            "quality": dict(window.quality),
            "extraction": window.extraction,
            "stem": window.stem,
        },
        level=0,
    )


def from_record(record: bytes) -> Window:
    fields = codec.decode(record, limit=64 << 20)
    return Window(
        features={m: Features(f["values"], f["rate"], f["start"]) for m, f in fields["features"].items()},
        captured_at=fields["captured_at"],
        label=fields["label"],
        truth=fields["truth"],
        group=fields["group"],
        features_saw_label=fields["saw"],
        quality=fields["quality"],
        extraction=fields["extraction"],
        stem=fields["stem"],
    )


def embed(window: Window, stem: Stem) -> dict[Modality, np.ndarray[Any, Any]]:
    """Z[0] of each modality (T, d)."""
    if window.stem is not None:
        return {m: features.values for m, features in window.features.items()}
    return {m: stem.embed(m, features.values) for m, features in window.features.items()}


def thinned(window: Window, factor: int) -> Window:
    """The window with so many rows of sound and pictures averaged into one."""
    kept = {
        m: f if m == "text" else Features(thin(f.values, factor), f.rate / factor, f.start)
        for m, f in window.features.items()
    }
    return replace(window, features=kept)


def to_packet_window(
    window: Window,
    seq: int,
    *,
    stem: Stem | None,
    relative_bound: float,
    share_label: bool,
    factor: int = 1,
    noise: float = 0.0,
    secret: bytes = b"",
) -> PacketWindow:
    """Embed (with a stem) and quantise one window; `factor` rows of sound and pictures are averaged before.

    Words are not averaged, and Z[0] of a recording is not: both would become something else. `noise` and `secret` as
    `noise.noisy` takes them.
    """
    if factor > 1 and window.stem is None:
        window = thinned(window, factor)
    if stem is not None:
        arrays = embed(window, stem)
    else:
        arrays = {m: features.values for m, features in window.features.items()}
    arrays = noisy(arrays, noise, secret, seq)
    return PacketWindow(
        seq=seq,
        captured_at=window.captured_at,
        sequences={m: quantize(values, relative_bound).to_fields() for m, values in arrays.items()},
        quality=dict(window.quality),
        score=window.label if share_label else None,
        group=window.group if share_label else "",
        features_saw_label=window.features_saw_label,
    )
