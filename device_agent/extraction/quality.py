"""How good the rows of a window are, by name; the names and their ranges are `megace2_iot.quality`'s.

A modality without rows has only its gap (and all its pictures dropped): nothing else is known of what is not there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from device_agent.extraction.rows import Array, Rows
from megace2_iot.features import Modality
from megace2_iot.quality import INDICATORS

SHORTEST = 1e-3  # s; a shorter window has no gap
JITTER = 0.75  # steps by which rows may be apart beyond their step without a gap


def indicators(
    rows: Mapping[Modality, Rows | None], start: float, end: float, rates: Mapping[Modality, float]
) -> dict[str, float]:
    """Indicators of the modalities of `rows` in a window from `start` to `end` s; `rates` are nominal rows a second."""
    found: dict[str, float] = {}
    for modality, some in rows.items():
        is_empty = some is None or not len(some)
        found[f"{modality}_gap"] = 1.0 if some is None or is_empty else _gap(some, start, end)
        if modality == "vision":
            found["vision_dropped"] = _dropped(0 if some is None else len(some), end - start, rates.get(modality, 0.0))
        if some is not None and not is_empty:
            found |= _OBSERVED[modality](some.observed)
    return {name: _within(name, value) for name, value in found.items()}


def _gap(rows: Rows, start: float, end: float) -> float:
    """Part of the window in holes between rows; at its ends a hole of up to a step is the neighbouring window's row."""
    if rows.step <= 0 or end - start < SHORTEST:
        return 0.0
    holes = np.diff(rows.times) - rows.step
    edges = np.array([rows.times[0] - start, end - rows.times[-1] - rows.step])
    missing = holes[holes > JITTER * rows.step].sum() + edges[edges > rows.step].sum()
    return float(missing / (end - start))


def _dropped(count: int, duration: float, rate: float) -> float:
    expected = np.floor(duration * rate + 1e-6)
    return float(1 - count / expected) if expected >= 1 else 0.0


def _of_text(observed: Mapping[str, Array]) -> dict[str, float]:
    return {"text_unknown": float(observed["unknown"].mean())}


def _of_audio(observed: Mapping[str, Array]) -> dict[str, float]:
    power = 10 ** (observed["level"].astype(np.float64) / 10)
    noise = float((10 ** (observed["noise"].astype(np.float64) / 10)).mean())
    speech = observed["speech"] > 0
    signal = float(power[speech].mean() if speech.any() else power.mean()) - noise
    return {
        "audio_level": 10 * float(np.log10(power.mean() + 1e-30)),
        "audio_snr": 10 * float(np.log10(max(signal, 1e-30) / noise)),
        "audio_clipping": float(observed["clipped"].mean()),
        "audio_speech": float(speech.mean()),
    }


def _of_vision(observed: Mapping[str, Array]) -> dict[str, float]:
    return {
        "vision_exposure": float(1 - (observed["dark"] + observed["bright"]).mean()),
        "vision_sharpness": float(np.median(observed["sharpness"])),
    }


_OBSERVED = {"text": _of_text, "audio": _of_audio, "vision": _of_vision}


def _within(name: str, value: float) -> float:
    indicator = INDICATORS[name]
    return min(max(value, indicator.lowest), indicator.highest)
