"""The extractors of a device's settings, and what a whole clip becomes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from device_agent.extraction.extractors import make_extractors
from device_agent.extraction.quality import indicators
from device_agent.extraction.rows import Rows
from device_agent.extraction.settings import SenseSettings
from device_agent.media.chunks import Picture, Sound, Words
from megace2_iot.problems import Problem
from megace2_iot.quality import DEFAULT_FLOORS, INDICATORS, under_floor


def test_the_usual_widths() -> None:
    """300, 74 and 35 at words, 12.5 and 15 Hz, in the order of L, A, V."""
    made = make_extractors(SenseSettings())
    assert {modality: (one.dim, one.step, one.modality) for modality, one in made.items()} == {
        "text": (300, 0.0, "text"),
        "audio": (74, 0.08, "audio"),
        "vision": (35, 1 / 15, "vision"),
    }
    assert list(make_extractors(SenseSettings(modalities=("vision", "text")))) == ["text", "vision"]


def test_settings_reach_their_extractors(tmp_path: Path) -> None:
    """Rates, widths, a file of vectors, a model that is missing."""
    path = tmp_path / "glove.txt"
    path.write_text("good 1 2 3\nbad 4 5 6\n")
    made = make_extractors(SenseSettings(vectors=path, max_words=1, audio_rate=25, picture_rate=5, stop_words=False))
    assert (made["text"].dim, made["audio"].step, made["vision"].step) == (3, 0.04, 0.2)
    rows = made["text"].push(Words("the good bad", 0.0, 1.0))
    assert rows is not None
    assert rows.observed["unknown"].tolist() == [1, 0, 1]
    assert make_extractors(SenseSettings(text_dim=64))["text"].dim == 64
    for settings, reason in (({"vectors": "none.txt"}, "none.txt"), ({"vision_model": "no.onnx"}, "no.onnx|onnx")):
        with pytest.raises(Problem, match=reason):
            make_extractors(SenseSettings(**settings))


@pytest.mark.parametrize("wrong", [{"audio_rate": 4}, {"picture_rate": 0}, {"modalities": ()}, {"colour": True}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    """Before anything runs."""
    with pytest.raises(ValidationError):
        SenseSettings(**wrong)  # type: ignore[arg-type]


def test_a_real_clip(clip_sound: Callable[[str], np.ndarray], clip_pictures: Callable[[str], list[Picture]]) -> None:
    """A speaker in a usual room has rows of all three and nothing that a floor would mask."""
    made = make_extractors(SenseSettings())
    sound = clip_sound("Oz06ZWiO20M_6.mp4")
    parts = {
        "text": [made["text"].push(Words("a weird the interesting idiosyncratic failure", 0.0, 7.5))],
        "audio": [made["audio"].push(Sound(sound, 16_000, 0.0)), made["audio"].flush()],
        "vision": [made["vision"].push(picture) for picture in clip_pictures("Oz06ZWiO20M_6.mp4")],
    }
    rows = {modality: Rows.join([part for part in some if part is not None]) for modality, some in parts.items()}
    quality = indicators(rows, 0.0, 7.4, {"text": 0, "audio": 12.5, "vision": 15})  # type: ignore[arg-type]
    assert quality.keys() == INDICATORS.keys()
    assert [quality[f"{modality}_gap"] for modality in rows] == [0.0, 0.0, 0.0]
    assert quality["audio_snr"] > 15
    assert quality["vision_dropped"] < 0.03
    assert under_floor(quality, DEFAULT_FLOORS) == {}


def test_extraction_needs_neither_torch_nor_a_decoder() -> None:
    """A device without PyAV, torch, scipy and ONNX Runtime makes all built-in features."""
    code = """if True:
        import sys
        sys.modules |= dict.fromkeys(("torch", "scipy", "onnxruntime", "onnx", "av"))
        from device_agent.extraction.extractors import make_extractors
        from device_agent.extraction.settings import SenseSettings
        print(*make_extractors(SenseSettings()))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["text", "audio", "vision"]
