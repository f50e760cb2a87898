"""Names of quality indicators and their floors, as an edge uses them."""

from __future__ import annotations

import math

import pytest

from megace2_iot.features import MODALITIES
from megace2_iot.quality import DEFAULT_FLOORS, INDICATORS, under_floor, unknown_floors


@pytest.mark.parametrize(
    ("quality", "masked"),
    [
        ({}, {}),
        ({"audio_snr": 3.0, "vision_gap": 0.5}, {}),
        ({"audio_snr": 1.234}, {"audio": "audio_snr 1.23 < 3"}),
        ({"audio_snr": 1.2, "audio_clipping": 0.9}, {"audio": "audio_snr 1.2 < 3"}),
        ({"vision_gap": 0.51, "audio_snr": 2}, {"audio": "audio_snr 2 < 3", "vision": "vision_gap 0.51 > 0.5"}),
        ({"audio_snr": math.nan}, {"audio": "audio_snr nan < 3"}),
        ({"audio_snr": math.inf, "vision_gap": -math.inf}, {}),
        ({"made_up": -1.0, "text_unknown": 1.0}, {}),
    ],
)
def test_a_floor_masks_on_the_bad_side(quality: dict[str, float], masked: dict[str, str]) -> None:
    """What is at its floor stays; what is not sent, not known or without a floor masks nothing."""
    assert under_floor(quality, {"audio_snr": 3, "audio_clipping": 0.5, "vision_gap": 0.5}) == masked


def test_without_floors_nothing_is_masked() -> None:
    """However bad it is."""
    assert under_floor(dict.fromkeys(INDICATORS, math.nan), {}) == {}


def test_the_table_is_consistent() -> None:
    """Every indicator is named after its modality, and the default floors mask neither the best nor the middle."""
    for name, indicator in INDICATORS.items():
        assert indicator.modality in MODALITIES
        assert name.startswith(f"{indicator.modality}_")
        assert indicator.lowest < indicator.highest
    best = {name: one.highest if one.good == "high" else one.lowest for name, one in INDICATORS.items()}
    worst = {name: one.lowest if one.good == "high" else one.highest for name, one in INDICATORS.items()}
    middle = {name: (one.lowest + one.highest) / 2 for name, one in INDICATORS.items()}
    assert under_floor(best, DEFAULT_FLOORS) == under_floor(middle, DEFAULT_FLOORS) == {}
    assert set(under_floor(worst, DEFAULT_FLOORS)) == set(MODALITIES)


def test_floors_of_no_indicator_are_found() -> None:
    """A floor with a typing error would silently mask nothing."""
    assert unknown_floors({"audio_snr": 3, "audio_snrr": 3, "snr": 1}) == ["audio_snrr", "snr"]
    assert unknown_floors(DEFAULT_FLOORS) == []
