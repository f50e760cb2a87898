"""Arrays of an .npz, read into memory where they fit into this machine's."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megace2_iot.hardware import memory

# What numpy and zipfile raise on bytes that are no .npz, by experience: TypeError for one array without a name.
NPZ_DAMAGE = (
    *(ValueError, TypeError, OSError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


def read_npz(path: Path, only: Collection[str] = ()) -> dict[str, npt.NDArray[Any]]:
    """Its arrays, or those of these names that it has.

    Raises FileNotFoundError where there is no file, ValueError where it cannot be read or is larger than the memory.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no data set at {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = [key for key in file.files if not only or key in only]
            _check_size(file.zip, keys)
            return {key: np.asarray(file[key]) for key in keys}  # numpy gives bytes of what is no array
    except NPZ_DAMAGE as error:
        raise ValueError(f"{path} cannot be read as an .npz without pickled objects: {error}") from error


def _check_size(archive: zipfile.ZipFile, keys: Collection[str]) -> None:
    """A megabyte may be a gigabyte of zeros: what the archive says of a member is all that is ever unpacked of it."""
    size = sum(member.file_size for member in archive.infolist() if member.filename.removesuffix(".npy") in keys)
    if 0 < memory() < size:
        raise ValueError(f"it unpacks to {size:,} bytes, more than this machine's memory")
