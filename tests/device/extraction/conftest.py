"""Real clips, decoded, for the tests of extraction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent.media.chunks import Picture


@pytest.fixture(scope="session")
def av() -> Any:
    """PyAV, where it is installed."""
    return pytest.importorskip("av", reason="PyAV is not installed (pip install 'megace2-iot[sense]')")


@pytest.fixture(scope="session")
def clip_sound(av: Any, data_folder: Path) -> Callable[[str], np.ndarray]:
    """A clip's sound (N,) in mono at 16 kHz."""

    def decode(name: str) -> np.ndarray:
        with av.open(str(data_folder / "clips" / name)) as file:
            resampler = av.AudioResampler("flt", "mono", 16_000)
            frames = [*file.decode(audio=0), None]
            return np.concatenate([part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)])

    return decode


@pytest.fixture(scope="session")
def clip_pictures(av: Any, data_folder: Path) -> Callable[[str], list[Picture]]:
    """A clip's pictures, 80 wide."""

    def decode(name: str) -> list[Picture]:
        with av.open(str(data_folder / "clips" / name)) as file:
            frames = [(frame, round(frame.height * 80 / frame.width)) for frame in file.decode(video=0)]
            return [Picture(f.to_ndarray(format="rgb24", width=80, height=h), float(f.time)) for f, h in frames]

    return decode
