"""An outbox whose disk changed what SQLite takes for whole: text where a number belongs, and other text."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from device_agent.outbox import Bounds, Outbox
from device_agent.outbox.look import stats

BOUNDS = Bounds(windows=2, size=1 << 20, age=1e9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An outbox that shed three windows and holds two."""
    outbox = Outbox(tmp_path / "cam.outbox", BOUNDS)
    for number in range(5):
        outbox.accept(b"record", 1.0 + number, 9.0)
    outbox.close()
    return tmp_path / "cam.outbox"


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)


@pytest.mark.parametrize("shed", ["{", "[]", '{"full": "three"}', "null"])
def test_a_gap_without_its_reasons_is_told_all_the_same(path: Path, shed: str) -> None:
    """The edge must know that these seqs do not come; why they do not is lost."""
    change(path, f"UPDATE gaps SET shed = '{shed}'")
    outbox = Outbox(path, BOUNDS)
    (gap,) = outbox.gaps_due(10.0, 9)
    outbox.close()
    assert (gap.first, gap.last, dict(gap.shed)) == (1, 3, {})


def test_books_that_are_no_numbers_begin_anew(path: Path) -> None:
    """A device starts on whatever it finds: the damaged file is kept beside the new one."""
    change(path, "UPDATE meta SET value = 'seven' WHERE name = 'seq'")
    assert stats(path)["windows"] == 2
    outbox = Outbox(path, BOUNDS)
    assert len(outbox) == 0
    outbox.close()
    assert path.with_name("cam.outbox.damaged-1").exists()
