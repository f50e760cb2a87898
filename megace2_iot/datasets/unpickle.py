"""Read pickles of arrays from strangers: nothing of them is ever executed.

A pickle is a program that names functions and calls them. Here a name is looked up in a list of a few, and each of
them is a stand-in written on this page: arrays, their types and scalars are rebuilt from their bytes, so that not
even numpy sees a stranger's state, and no size is allocated before its bytes are there. Any other name is a
ValueError. Python 2's pickles are read as latin-1, as their arrays need.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_FILE = 16 << 30  # bytes: room for the largest published file, MMSA's unaligned MOSEI
MAX_OBJECTS = 1_000_000  # elements of an array of objects: ids and sentences
MAX_TUPLES = 20_000  # published files have some hundreds; 100,000 in one another, hashed as a key, overflow C's stack
MAX_DEPTH = 16  # of containers in containers; published files have 3
KINDS = "biufSUO"  # of numpy's types: numbers, strings, and objects that are ids
DAMAGE = (  # what the unpickler raises on bytes that are no pickle, by experience with cut and altered ones
    pickle.UnpicklingError,
    *(EOFError, ValueError, TypeError, AttributeError, LookupError, ImportError),
    *(ArithmeticError, MemoryError, RecursionError, NotImplementedError, AssertionError),
)


def read_pickle(path: Path) -> Any:
    """The plain containers and arrays of a pickle. Raises ValueError for anything else, OSError where none is read."""
    size = path.stat().st_size
    if size > MAX_FILE:
        raise ValueError(f"{path} has {size:,} bytes, more than the {MAX_FILE:,} that are read of a pickle")
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged strings of protocol 0 are escapes that Python warns of
        try:
            _check(file)
            file.seek(0)
            loaded = _Unpickler(file, encoding="latin1").load()
            return _plain(loaded, 0, {})
        except _ForbiddenError as forbidden:
            raise ValueError(f"{path} names {forbidden}, and of a pickle only arrays and containers are read") from None
        except DAMAGE as error:
            raise ValueError(f"{path} cannot be read as a pickle of arrays: {error}") from None


class _ForbiddenError(Exception):
    """The name of a function or class that no pickle of arrays needs."""


class _Unpickler(pickle.Unpickler):
    """Looks names up in the list of this page."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name."""
        if module in ("builtins", "__builtin__"):
            found = _BUILTINS.get(name)
        elif module == "collections" and name == "OrderedDict":
            found = collections.OrderedDict
        elif module == "_codecs" and name == "encode":
            found = _MAKE.latin1
        else:
            found = _NUMPY.get((module.replace("numpy.core", "numpy._core"), name))
        if found is None:
            raise _ForbiddenError(f"{module}.{name}")
        return found


class _Type:
    """A type of numpy's, before and after its state is set."""

    __slots__ = ("dtype",)

    def __init__(self, name: str) -> None:
        self.dtype = np.dtype("O" if name.startswith("O") else name)  # Python 2 wrote O8
        if self.dtype.kind not in KINDS or self.dtype.fields or self.dtype.subdtype:
            raise ValueError(f"an array of {name}")

    def __setstate__(self, state: Any) -> None:
        """Of (version, byte order, sub-array, names, fields, size, alignment, flags) only the order is taken."""
        if any(part is not None for part in state[2:5]):
            raise ValueError("an array of records")
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array that waits for its bytes."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: npt.NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        """(version, shape, type, column by column, bytes)."""
        _, shape, kind, fortran, data = state
        self.values = _filled(kind, shape, data, "F" if fortran else "C")


class _Make:
    """The functions that a pickle may call; as bound methods, so that nothing can be set on them."""

    def empty(self, kind: Any, shape: Any, code: Any) -> _Array:
        """`numpy._core.multiarray._reconstruct`: an array whose state follows."""
        if kind is not _NDARRAY or tuple(shape) != (0,):
            raise ValueError("an array that is no plain one")
        return _Array()

    def from_buffer(self, data: Any, kind: Any, shape: Any, order: Any) -> _Array:
        """`numpy._core.numeric._frombuffer`: how protocol 5 writes arrays."""
        array = _Array()
        array.values = _filled(kind, shape, data, "F" if order == "F" else "C")
        return array

    def scalar(self, kind: Any, data: Any) -> Any:
        """`numpy._core.multiarray.scalar`: one number or string."""
        return _filled(kind, (1,), data, "C")[0]

    def type(self, name: Any, *_: Any) -> _Type:
        """`numpy.dtype(name, align, copy)`."""
        return _Type(str(name))

    def latin1(self, text: str, encoding: str = "latin1") -> bytes:
        """`_codecs.encode`, by which protocol 2 writes bytes."""
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"bytes as {encoding}")
        return text.encode("latin1")

    def no_bytes(self) -> bytes:
        """`bytes()`: with a number it would allocate."""
        return b""

    def bytearray(self, *args: Any) -> bytearray:
        """`bytearray(bytes)`, or of latin-1 text; never of a number."""
        return bytearray(_bytes(args[0])) if args else bytearray()


_MAKE = _Make()
_NDARRAY = object()  # the class itself is only named, never called: it would allocate what it is told
_BUILTINS: dict[str, Callable[..., Any]] = {
    "set": set,
    "frozenset": frozenset,
    "bytes": _MAKE.no_bytes,
    "bytearray": _MAKE.bytearray,
}
_NUMPY: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _MAKE.type,
    ("numpy._core.multiarray", "_reconstruct"): _MAKE.empty,
    ("numpy._core.multiarray", "scalar"): _MAKE.scalar,
    ("numpy._core.numeric", "_frombuffer"): _MAKE.from_buffer,
}


def _bytes(data: Any) -> bytes | bytearray:
    if isinstance(data, str):  # Python 2's
        return data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError(f"{type(data).__name__} where bytes belong")
    return data


def _filled(kind: Any, shape: Any, data: Any, order: Any) -> npt.NDArray[Any]:
    """An array of exactly these bytes or, of objects, of this list."""
    if not isinstance(kind, _Type):
        raise ValueError("an array of an unknown type")
    if kind.dtype.kind != "O":
        return np.frombuffer(_bytes(data), kind.dtype).reshape(shape, order=order)
    if not isinstance(data, list) or len(data) > MAX_OBJECTS or math.prod(shape) != len(data):
        raise ValueError(f"an array of objects that is no list of at most {MAX_OBJECTS:,}")
    objects = np.empty(len(data), object)
    objects[:] = [_word(value) for value in data]
    return objects.reshape(shape, order=order)


def _word(value: Any) -> Any:
    if not isinstance(value, (str, bytes, int, float, np.generic, type(None))):
        raise ValueError(f"an array of {type(value).__name__} objects")
    return value


def _plain(value: Any, depth: int, seen: dict[int, Any]) -> Any:
    """`value` with its arrays in place of what stood for them; each shared part is walked once."""
    if depth > MAX_DEPTH:
        raise ValueError(f"containers nested deeper than {MAX_DEPTH}")
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict):
        made: Any = {key: _plain(inner, depth + 1, seen) for key, inner in value.items()}
    elif isinstance(value, (list, tuple)):
        made = type(value)([_plain(inner, depth + 1, seen) for inner in value])
    elif isinstance(value, (set, frozenset, str, bytes, bytearray, int, float, np.generic, type(None))):
        return value
    else:
        raise ValueError(f"a {type(value).__name__}")
    seen[id(value)] = made
    return made


def _check(file: io.BufferedReader) -> None:
    """Refuse, before anything is built, what no honest pickle has and what would bring the process down.

    A far place in the memo: the unpickler fills all places before it. Very many tuples: hashing one recurses into it.
    """
    tuples = 0
    for count, (code, argument, _) in enumerate(pickletools.genops(file), 1):
        tuples += code.name.startswith("TUPLE")
        if tuples > MAX_TUPLES:
            raise ValueError(f"more than {MAX_TUPLES:,} tuples")
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > count:
            raise ValueError(f"place {argument} of the memo after {count} steps")
