"""The labelled store: bounded, on disk, each window once, split into halves by one hash."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_gateway import labels as module
from edge_gateway.labels import LabelledStore
from megace2_iot.labels import half
from megace2_iot.problems import Problem

Z = {"text": np.arange(6, dtype=np.float32).reshape(3, 2)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelledStore]:
    with contextlib.closing(LabelledStore(tmp_path / "labelled.sqlite", 4)) as opened:
        yield opened


def add(store: LabelledStore, seq: int, score: float = 1.0, group: str = "", stem: str = "s") -> None:
    store.remember("cam", 1, seq, stem, lambda: Z, 24, group, saw=False)
    assert store.label("cam", 1, seq, score)


def test_a_label_finds_its_window(store: LabelledStore) -> None:
    """What was remembered comes back with score and half, bit for bit."""
    add(store, 7, -0.5)
    (sample,) = store.of_stem("s")
    assert (sample.score, sample.half, sample.features_saw_label) == (-0.5, half("", "cam", 1, 7), False)
    assert np.array_equal(sample.z["text"], Z["text"])


def test_a_label_without_its_window_is_said_so(store: LabelledStore) -> None:
    """It came too late, or for a window of another device."""
    assert not store.label("cam", 1, 1, 1.0)
    assert len(store) == 0


def test_a_second_label_corrects_the_first(store: LabelledStore) -> None:
    """A window is in the store once, whatever many tell its score."""
    add(store, 1, 1.0)
    add(store, 1, -2.0)
    assert [sample.score for sample in store.of_stem("s")] == [-2.0]


def test_the_oldest_leave_first(store: LabelledStore) -> None:
    """The store is bounded."""
    for seq in range(9):
        add(store, seq, float(seq))
    assert [sample.score for sample in store.of_stem("s")] == [5.0, 6.0, 7.0, 8.0]


def test_what_another_stem_embedded_is_left_out(store: LabelledStore) -> None:
    """Z[0] of two stems cannot be trained on together."""
    add(store, 1, stem="s")
    add(store, 2, stem="t")
    assert len(store.of_stem("t")) == 1


def test_only_the_newest_windows_wait_for_a_label(store: LabelledStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for late labels is bounded too."""
    monkeypatch.setattr(module, "REMEMBERED", 3)
    for seq in range(5):
        store.remember("cam", 1, seq, "s", lambda: Z, 24, "", saw=False)
    assert [store.label("cam", 1, seq, 0.0) for seq in range(5)] == [False, False, True, True, True]


def test_labels_survive_a_restart(tmp_path: Path) -> None:
    """They were given once, and nobody gives them again."""
    for _ in range(2):
        with contextlib.closing(LabelledStore(tmp_path / "l.sqlite")) as store:
            add(store, 1)
            assert len(store) == 1


def test_a_file_that_is_no_store_is_told(tmp_path: Path) -> None:
    """With what to do about it."""
    (tmp_path / "l.sqlite").write_bytes(b"something else, and quite long" * 99)
    with pytest.raises(Problem, match="move it away"):
        LabelledStore(tmp_path / "l.sqlite")


def test_a_changed_record_is_left_out(tmp_path: Path) -> None:
    """A bit that the disk flipped costs one window, not the edge."""
    path = tmp_path / "l.sqlite"
    with contextlib.closing(LabelledStore(path)) as store:
        add(store, 1)
        add(store, 2, -1.0)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE labelled SET record = x'00' WHERE seq = 1")
    with contextlib.closing(LabelledStore(path)) as store:
        assert [sample.score for sample in store.of_stem("s")] == [-1.0]


def test_a_store_with_a_damaged_page_is_told(tmp_path: Path) -> None:
    """At the start, and not in the middle of a fit: the file begins as a good one does."""
    path = tmp_path / "l.sqlite"
    with contextlib.closing(LabelledStore(path)) as store:
        for seq in range(200):
            add(store, seq)
    content = bytearray(path.read_bytes())
    content[8192:12288] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(Problem, match="move it away"):
        LabelledStore(path)


def test_the_halves_are_halves_and_groups_stay_whole() -> None:
    """About as many fit as gate; a recording is never in both."""
    assert 400 < sum(half("", "cam", 1, seq) == "fit" for seq in range(1000)) < 600
    assert len({half("video 3", "cam", 1, seq) for seq in range(50)}) == 1
