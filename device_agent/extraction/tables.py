"""Arrays of an .npz that stay in the file: numpy itself reads a member whole, whatever its size.

They are read by `seek` and not mapped: pages of a map count as the process's memory, 500 MB after 10,000 look-ups.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megace2_iot.problems import Problem

LARGEST = 64 << 20  # bytes of a compressed member, which has to be held
LOCAL_HEADER = 30  # bytes before the name and the extra field of a zip's member; their lengths are its last two


class StoredTable:
    """The array `name` of an .npz, of which rows are read when they are asked for."""

    def __init__(self, path: Path, name: str) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                member = archive.getinfo(f"{name}.npy")
                with archive.open(member) as data:
                    self.shape, fortran, self.dtype = _header(data)
                    header = data.tell()
        except (KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
            raise Problem(f"{path} holds no word vectors (words, vectors): {error}") from None
        self._path = path
        self._held: npt.NDArray[Any] | None = None
        if self.dtype.hasobject:
            raise Problem(f"{path}: {name} is no plain array: save it again as one of text or numbers")
        if member.compress_type == zipfile.ZIP_STORED and not fortran:
            self._offset = _data_offset(path, member.header_offset) + header
            if self._offset + math.prod(self.shape) * self.dtype.itemsize > path.stat().st_size:
                raise Problem(f"{path}: {name} is cut off")
            return
        if member.file_size > LARGEST:
            raise Problem(f"{path}: {name} is compressed and too large to hold: save it again with numpy.savez")
        with np.load(path, allow_pickle=False) as arrays:
            self._held = arrays[name]

    def rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows from `start` to before `stop`."""
        if self._held is not None:
            return self._held[start:stop]
        row = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        with self._path.open("rb") as file:
            file.seek(self._offset + start * row)
            return np.frombuffer(file.read((stop - start) * row), self.dtype).reshape(-1, *self.shape[1:])


def _header(data: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(data)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(data)


def _data_offset(path: Path, start: int) -> int:
    with path.open("rb") as file:
        file.seek(start)
        header = file.read(LOCAL_HEADER)
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return start + LOCAL_HEADER + name + extra
