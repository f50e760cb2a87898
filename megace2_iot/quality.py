"""Names of quality indicators: what a device measures of a window, and an edge compares with floors.

A packet carries them as plain numbers. What an edge does not know it ignores, and what a device did not send masks
nothing, so that either may be older than the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from megace2_iot.features import Modality


@dataclass(frozen=True, slots=True)
class Indicator:
    """One number between `lowest` and `highest`; beyond `floor`, on its bad side, the modality is of no use."""

    modality: Modality
    meaning: str
    good: Literal["high", "low"]
    lowest: float
    highest: float
    floor: float | None = None  # a default; None masks nothing


INDICATORS: Mapping[str, Indicator] = {
    "text_gap": Indicator("text", "1 where the window has no word", "low", 0.0, 1.0),
    "text_unknown": Indicator("text", "part of the words that have no vector", "low", 0.0, 1.0, 0.99),
    "audio_gap": Indicator("audio", "part of the window without sound data", "low", 0.0, 1.0, 0.9),
    "audio_level": Indicator("audio", "loudness of the whole in dB of full scale", "high", -100.0, 0.0, -75.0),
    "audio_snr": Indicator("audio", "speech, or all where nobody speaks, above the noise in dB", "high", -20.0, 80.0),
    "audio_clipping": Indicator("audio", "part of the samples at full scale", "low", 0.0, 1.0, 0.5),
    "audio_speech": Indicator("audio", "part of the rows in which somebody speaks", "high", 0.0, 1.0),
    "vision_gap": Indicator("vision", "part of the window without pictures", "low", 0.0, 1.0, 0.9),
    "vision_dropped": Indicator(
        "vision", "part of the pictures that are missing at the set rate", "low", 0.0, 1.0, 0.9
    ),
    "vision_exposure": Indicator("vision", "part of the picture neither black nor white", "high", 0.0, 1.0, 0.02),
    "vision_sharpness": Indicator(
        "vision", "detail: 0.1-0.5 as usual, 0.01 blurred, 20 noise", "high", 0.0, 20.0, 1e-4
    ),
}

DEFAULT_FLOORS: Mapping[str, float] = {
    name: indicator.floor for name, indicator in INDICATORS.items() if indicator.floor is not None
}


def unknown_floors(floors: Mapping[str, float]) -> list[str]:
    """Names among `floors` that no indicator has, for settings to refuse."""
    return [name for name in floors if name not in INDICATORS]


def under_floor(quality: Mapping[str, float], floors: Mapping[str, float]) -> dict[Modality, str]:
    """For each modality that should be masked the first reason, such as "audio_snr 1.2 < 3"; NaN is never good."""
    reasons: dict[Modality, str] = {}
    for name, indicator in INDICATORS.items():
        if name not in floors or name not in quality or indicator.modality in reasons:
            continue
        value, floor = quality[name], floors[name]
        is_good = value >= floor if indicator.good == "high" else value <= floor
        if not is_good:
            sign = "<" if indicator.good == "high" else ">"
            reasons[indicator.modality] = f"{name} {value:.3g} {sign} {floor:g}"
    return reasons
