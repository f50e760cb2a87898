"""What the model's tests share: small configs, random features, the reference's vectors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from megace2_iot.model.fusion import CrossModalTransformer, preset

torch.set_num_threads(1)

DIMS = {"text": 24, "audio": 12, "vision": 10}


@pytest.fixture
def nano() -> CrossModalTransformer:
    """A nano model in evaluation mode."""
    return CrossModalTransformer.seeded(preset("nano", DIMS), seed=1).eval()


@pytest.fixture(scope="session")
def conformance() -> Path:
    """The folder with the reference implementations' vectors."""
    folder = os.environ.get("MEGACE2_CONFORMANCE")
    if not folder or not Path(folder).is_dir():
        absent = "MEGACE2_CONFORMANCE names no folder: no reference vectors"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    return Path(folder or "")


Vectors = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def vectors(conformance: Path) -> Callable[[str], tuple[Vectors, dict[str, str]]]:
    """Read one file of vectors: its tensors and its metadata."""

    def read(name: str) -> tuple[Vectors, dict[str, str]]:
        with safe_open(str(conformance / f"{name}.safetensors"), "numpy") as file:
            tensors = {key: torch.from_numpy(np.array(file.get_tensor(key))) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata()

    return read
