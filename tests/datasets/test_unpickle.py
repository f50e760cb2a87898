"""Pickles of strangers: arrays and plain containers come back, nothing is executed, damage is one kind of error."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megace2_iot.datasets.unpickle import read_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
DATA: dict[str, Any] = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "by columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">i4"),
    "words": np.array([["a", "bc"]]),
    "bytes": np.array([b"x", b"yz"]),
    "objects": np.array(["video", b"0.5", 3, None], dtype=object),
    "empty": np.zeros((0, 4), np.float64),
    "scalar": np.float64(2.5),
    "truth": np.array([True, False]),
    "ordered": collections.OrderedDict(a=[1, (2, 3)], b={4}),
    "plain": [b"", b"\xff", bytearray(b"z"), None, 1.5, "text", True],
}


class Runs:
    """What a malicious pickle does: reconstructing it calls a function."""

    def __init__(self, call: Any, *args: Any) -> None:
        self._reduced = (call, args)

    def __reduce__(self) -> Any:
        return self._reduced


def written(folder: Path, data: bytes) -> Path:
    path = folder / "file.pkl"
    path.write_bytes(data)
    return path


def same(one: Any, other: Any) -> None:
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
    np.testing.assert_equal(one, other)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_and_containers_come_back(tmp_path: Path, protocol: int) -> None:
    """Every protocol, every kind of array that a data set needs; an OrderedDict is a dictionary."""
    read = read_pickle(written(tmp_path, pickle.dumps(DATA, protocol=protocol)))
    assert read.keys() == DATA.keys()
    for name, value in DATA.items():
        same(read[name], value)


def test_the_names_of_old_and_new_numpy_are_one(tmp_path: Path) -> None:
    """Files of numpy 1 name numpy.core, those of numpy 2 numpy._core."""
    data = pickle.dumps(DATA["float32"], protocol=2)
    assert b"numpy._core" in data
    for spelt in (data, data.replace(b"numpy._core", b"numpy.core")):
        same(read_pickle(written(tmp_path, spelt)), DATA["float32"])


def python2_array(array: np.ndarray) -> bytes:
    """An array of float32 as Python 2's protocol 2 writes it: names and raw data as byte strings."""
    shape = b"".join(b"K" + bytes([n]) for n in array.shape)
    raw = array.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01(" + shape + b"tcnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """The published files of MOSI were written by it: strings are bytes, in latin-1."""
    array = np.array([[1.5, -np.inf], [np.nan, 255.0]], np.float32)
    data = b"\x80\x02}U\x05audio" + python2_array(array) + b"s."
    same(read_pickle(written(tmp_path, data)), {"audio": array})


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("nested", [False, True])
def test_nothing_is_executed(tmp_path: Path, protocol: int, nested: bool) -> None:
    """The name is refused and told; the command has not run."""
    trace = tmp_path / "executed"
    evil: Any = Runs(os.system, f"touch {trace}")
    if nested:
        evil = {"train": {"text": np.zeros(3), "id": np.array([evil, 1], dtype=object)}}
    path = written(tmp_path, pickle.dumps(evil, protocol=protocol))
    with pytest.raises(ValueError, match=r"names (posix|nt)\.system, and of a pickle only arrays"):
        read_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "call",
    [
        eval,
        exec,
        getattr,
        __import__,
        open,
        print,
        np.load,
        np.frombuffer,
        np.fromfile,
        pickle.loads,
        collections.Counter,
    ],
)
def test_no_other_name_is_looked_up(tmp_path: Path, call: Any) -> None:
    """Neither builtins, nor the rest of numpy, nor what could read another pickle."""
    with pytest.raises(ValueError, match=r"names .*, and of a pickle only"):
        read_pickle(written(tmp_path, pickle.dumps(Runs(call, "1"))))


def test_names_with_dots_do_not_reach_further(tmp_path: Path) -> None:
    """Protocol 4 looks attributes up along dots: the list is asked for the whole name."""
    data = b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."
    with pytest.raises(ValueError, match=r"names numpy\.ndarray\.tofile"):
        read_pickle(written(tmp_path, data))


BOMBS = {
    "an array without bytes": pickle.dumps(Runs(np._core.multiarray._reconstruct, np.ndarray, (1 << 40,), b"b")),
    "an array that is called": pickle.dumps(Runs(np.ndarray, (1 << 40,))),
    "bytes by number": pickle.dumps(Runs(bytes, 1 << 40), protocol=2),
    "a byte array by number": pickle.dumps(Runs(bytearray, 1 << 40)),
    "a far place in the memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a long string that is not there": b"\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00.",
    "records": pickle.dumps(np.zeros(2, [("a", "f4"), ("b", "O")])),
    "dates": pickle.dumps(np.zeros(2, "M8[s]")),
    "objects in objects": pickle.dumps(np.array([{}, []], dtype=object)),
    "deep containers": pickle.dumps([[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]),
    "a key of tuples in tuples": b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.",
    "a list of itself": b"\x80\x02]q\x00h\x00a.",
    "a shape that does not fit": python2_array(np.zeros((2, 2), np.float32)).replace(b"K\x02K\x02", b"K\x02K\x03")
    + b".",
    "nothing": b"",
    "text": b"hello",
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_eat_memory_is_refused(tmp_path: Path, name: str) -> None:
    """A few bytes cannot ask for a tebibyte, and what is no data set is told in one kind of error."""
    with pytest.raises(ValueError, match=r"cannot be read as a pickle of arrays|names numpy"):
        read_pickle(written(tmp_path, BOMBS[name]))


def test_shared_parts_are_walked_once(tmp_path: Path) -> None:
    """Ten levels of lists that hold the level below ten times are ten lists, not ten thousand million."""
    level: list[Any] = [0]
    for _ in range(10):
        level = [level] * 10
    assert len(read_pickle(written(tmp_path, pickle.dumps(level)))) == 10


def test_a_file_may_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on the file, before a byte is read."""
    monkeypatch.setattr("megace2_iot.datasets.unpickle.MAX_FILE", 10)
    with pytest.raises(ValueError, match="more than the 10 that are read"):
        read_pickle(written(tmp_path, pickle.dumps(DATA)))


VALID = [pickle.dumps(DATA, protocol=protocol) for protocol in (0, 2, 4, 5)]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_a_value_error(tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere, or with any few bytes changed: ValueError or arrays, nothing else."""
    whole = bytearray(data.draw(st.sampled_from(VALID)))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    with contextlib.suppress(ValueError):
        read_pickle(written(tmp_path, bytes(whole[:cut])))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60))
def test_noise_is_a_value_error(tmp_path: Path, data: bytes) -> None:
    """Bytes that were never a pickle."""
    with contextlib.suppress(ValueError):
        read_pickle(written(tmp_path, b"\x80\x02" + data + b"."))
