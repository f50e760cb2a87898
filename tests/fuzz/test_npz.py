"""An .npz of a stranger: text where numbers belong, and members that are no arrays."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from device_agent.extraction.vectors import open_vectors
from megace2_iot.datasets import load
from megace2_iot.datasets.words import read_vectors
from megace2_iot.problems import Problem
from tests.fuzz import seeds


def changed(data: bytes, member: str, content: bytes) -> bytes:
    """The same .npz with one member replaced."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name == member else old.read(name))
    return made.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


WORDS = npy(np.array([["a", "b"]] * 6))


@pytest.mark.parametrize("content", [b"no array", b"", WORDS, npy(np.zeros((6, 2), "M8[s]")), npy(np.float32(1))])
def test_whatever_a_member_is_the_owner_is_told(tmp_path: Path, content: bytes) -> None:
    """One exception for a command to print, of each reader of such a file."""
    path = tmp_path / "t.npz"
    for sound, member in ((seeds.table(), "text.npy"), (seeds.table(), "start.npy"), (seeds.sequences(), "score.npy")):
        path.write_bytes(changed(sound, member, content))
        with pytest.raises(ValueError, match=r"."):
            load(str(path))
    path.write_bytes(changed(seeds.vectors(), "vectors.npy", content))
    with pytest.raises(ValueError, match=r"."):
        read_vectors(path, ["it"])
    with pytest.raises(Problem):
        open_vectors(path).pieces("it")
