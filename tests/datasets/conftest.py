"""What the tests of data sets share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from megace2_iot.datasets.sample import Sample
from megace2_iot.features import Features


@pytest.fixture(scope="session")
def mosi_path(data_folder: Path) -> Path:
    """The real CMU-MOSI table."""
    return data_folder / "mosi_utterances.npz"


@pytest.fixture(scope="session")
def conformance() -> Path:
    """The folder with the reference implementations' numbers."""
    folder = os.environ.get("MEGACE2_CONFORMANCE")
    if not folder or not Path(folder).is_dir():
        absent = "MEGACE2_CONFORMANCE names no folder: no reference numbers"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    return Path(folder or "")


@pytest.fixture
def plain_sample() -> Callable[..., Sample]:
    """Make a sample of nothing but its labels: `plain_sample(3, "video", score=1.0)`."""

    def make(i: int, group: str, score: float | None = 1.0) -> Sample:
        features = {"text": Features(np.full((2, 3), float(i), np.float32))}
        return Sample(f"s{i}", group, "train", float(i), score, features)  # type: ignore[arg-type]

    return make


@pytest.fixture
def table(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A small table in the layout of the utterance files, and its path (not yet written)."""
    rng = np.random.default_rng(0)
    count = 24
    columns = {
        "video": np.repeat(["a", "b"], 12),
        "segment": np.tile(np.arange(12, dtype=np.int16), 2),
        "start": np.tile(np.arange(12, dtype=np.float32)[::-1], 2),  # not in order of time
        "score": np.linspace(-3, 3, count).astype(np.float32),
        "split": np.repeat(["train", "test"], 12),
        "text": rng.standard_normal((count, 4)).astype(np.float32),
        "audio": rng.standard_normal((count, 3)).astype(np.float32),
        "vision": rng.standard_normal((count, 2)).astype(np.float32),
    }
    return tmp_path / "table.npz", columns
