"""Indicators of a window's quality, from rows that were made and from rows of real extractors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import RATE, heard, noise, voice

from device_agent.extraction.quality import indicators
from device_agent.extraction.rows import Rows
from device_agent.extraction.vision import VisionExtractor
from device_agent.media.chunks import Picture
from megace2_iot.features import MODALITIES
from megace2_iot.quality import DEFAULT_FLOORS, INDICATORS, under_floor

RATES = {"text": 0.0, "audio": 12.5, "vision": 15.0}


def _rows(times: list[float], step: float, **observed: list[float]) -> Rows:
    numbers = {name: np.array(values, np.float32) for name, values in observed.items()}
    return Rows(np.zeros((len(times), 2), np.float32), np.array(times, np.float64), step, numbers)


def _vision(times: list[float], sharpness: float = 0.3, dark: float = 0.0, bright: float = 0.0) -> Rows:
    seen = {"sharpness": sharpness, "dark": dark, "bright": bright}
    return _rows(times, 0.1, **{name: [value] * len(times) for name, value in seen.items()})


@pytest.mark.parametrize("snr", [3, 10, 20, 30])
def test_the_snr_of_a_voice_in_noise(snr: int) -> None:
    """As it was mixed, within 0.5 dB."""
    spoken, room = voice(150, 3.0), noise(6.0, 1.0)
    sound = room * np.sqrt(np.square(spoken).mean()) / 10 ** (snr / 20)
    sound[2 * RATE : 5 * RATE] += spoken
    found = indicators({"audio": heard(0.3 * sound).part(slice(12, None))}, 0.96, 6.0, RATES)
    assert found["audio_snr"] == pytest.approx(snr, abs=0.5)
    assert found["audio_gap"] == 0.0


def test_noise_and_silence_have_no_snr() -> None:
    """White noise is below 0 dB, silence at the lowest; only silence is of no use by default."""
    for samples, masked in ((noise(3.0), False), (np.zeros(3 * RATE, np.float32), True)):
        found = indicators({"audio": heard(samples)}, 0.0, 2.96, RATES)
        assert found["audio_snr"] < 0
        assert found["audio_speech"] == found["audio_clipping"] == 0.0
        assert bool(under_floor(found, DEFAULT_FLOORS)) is masked
    assert (found["audio_snr"], found["audio_level"]) == (-20.0, pytest.approx(-100.0))


def test_black_frames_are_of_no_use() -> None:
    """Also with a camera's noise; a dim room is."""
    rng = np.random.default_rng(0)
    for brightness, masked in ((2, True), (60, False)):
        extractor = VisionExtractor()
        pixels = [rng.integers(0, brightness * 2, (60, 80, 3), np.uint8) for _ in range(15)]
        parts = [extractor.push(Picture(one, i / 15)) for i, one in enumerate(pixels)]
        found = indicators({"vision": Rows.join([part for part in parts if part])}, 0.0, 1.0, RATES)
        assert (found["vision_gap"], found["vision_dropped"]) == (0.0, 0.0)
        assert under_floor(found, DEFAULT_FLOORS) == ({"vision": "vision_exposure 0 < 0.02"} if masked else {})


def test_gaps_and_dropped_pictures() -> None:
    """Holes count where they are longer than jitter, at the window's ends where they are longer than a step."""
    even = [i / 10 for i in range(20)]
    lost = [at for at in even if not 0.45 < at < 0.95]
    assert indicators({"vision": _vision(even)}, 0.0, 2.0, {"vision": 10}) == {
        "vision_gap": 0.0,
        "vision_dropped": 0.0,
        "vision_exposure": 1.0,
        "vision_sharpness": pytest.approx(0.3),
    }
    found = indicators({"vision": _vision(lost)}, 0.0, 2.0, {"vision": 10})
    assert (found["vision_gap"], found["vision_dropped"]) == pytest.approx((0.25, 0.25))
    assert indicators({"vision": _vision(even)}, 0.05, 2.05, {"vision": 10})["vision_gap"] == 0.0
    assert indicators({"vision": _vision(even[10:])}, 0.0, 2.0, {"vision": 10})["vision_gap"] == pytest.approx(0.5)
    assert indicators({"vision": _vision(even[:10])}, 0.0, 2.0, {"vision": 10})["vision_gap"] == pytest.approx(0.5)
    assert (
        indicators({"vision": _vision([at + 0.03 * (-1) ** i for i, at in enumerate(even)])}, 0.0, 2.0, RATES)[
            "vision_gap"
        ]
        == 0.0
    )


def test_a_modality_without_rows_is_a_gap() -> None:
    """Nothing else is known of it, and what a device does not sense is not told at all."""
    empty = _rows([], 0.08, level=[], clipped=[], speech=[], noise=[])
    assert indicators({"text": None, "audio": empty, "vision": None}, 0.0, 1.0, RATES) == {
        "text_gap": 1.0,
        "audio_gap": 1.0,
        "vision_gap": 1.0,
        "vision_dropped": 1.0,
    }
    assert indicators({}, 0.0, 1.0, RATES) == {}


def test_text() -> None:
    """A window with a word has no gap, whatever is silent around it."""
    found = indicators({"text": _rows([0.5, 0.7], 0.0, unknown=[0, 1])}, 0.0, 10.0, RATES)
    assert found == {"text_gap": 0.0, "text_unknown": 0.5}


_NUMBERS = st.floats(-1e3, 1e3, width=32)


@given(st.lists(st.tuples(*[_NUMBERS] * 7), min_size=1, max_size=5), st.floats(0, 3), st.floats(-1, 100))
@settings(deadline=None)
def test_indicators_are_finite_and_in_their_ranges(rows: list[tuple[float, ...]], end: float, rate: float) -> None:
    """Whatever was observed, and for a window without a length too."""
    columns = list(zip(*rows, strict=True))
    times = sorted(columns[0])
    names = ("level", "clipped", "speech", "noise", "sharpness", "dark")
    observed = {name: list(values) for name, values in zip(names, columns[1:], strict=True)}
    made = _rows(times, 0.1, bright=observed["dark"], unknown=observed["dark"], **observed)
    found = indicators(dict.fromkeys(MODALITIES, made), 0.0, end, dict.fromkeys(MODALITIES, rate))
    assert found.keys() == INDICATORS.keys()
    for name, value in found.items():
        assert INDICATORS[name].lowest <= value <= INDICATORS[name].highest
        assert type(value) is float
