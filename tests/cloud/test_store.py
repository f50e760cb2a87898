"""The cloud's disk: what is promised is kept, through SIGKILL, pruning, damage and a second opener."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cloud_aggregator
from cloud_aggregator.store import Store, StoreError, UpdateRow, VerdictRow
from megace2_iot.blobs import digest
from megace2_iot.messages import UpdateOffer
from megace2_iot.tensors import decode_tensors, encode_tensors

ROOT = Path(cloud_aggregator.__file__).parents[1]


def model(*values: float) -> bytes:
    return encode_tensors({"a.x": np.float32(values)}, {})


def update(number: int, *, edge: str = "e1", base: int = 1, family: str = "f") -> tuple[UpdateRow, bytes]:
    body = b"delta %d" % number
    row = UpdateRow(
        digest(b"%d" % number), edge, family, base, number, {"a": 2.5}, "int8", digest(body), len(body), 1e9 + number
    )
    return row, body


def accepted(store: Store, number: int, *, edge: str = "e1", base: int = 1) -> int:
    """Receive and accept update `number`; returns the version it made."""
    row, body = update(number, edge=edge, base=base)
    store.journal.receive(row, body)
    return store.journal.accept(row.id, [model(number)], 0).version


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path, durable=False) as store:
        store.begin_family("f", "{}", model(0), b"stem")
        yield store


# -- families and releases ------------------------------------------------------------
def test_an_empty_store_has_no_family(tmp_path: Path) -> None:
    """The cloud makes release 1 only where there is none."""
    with Store.open(tmp_path) as store:
        assert store.family() is None
        assert store.begin_family("f", "{}", model(1), b"stem").version == 1
    with Store.open(tmp_path) as store:
        row = store.family()
        assert row is not None
        assert (row.family, row.config, store.blobs.view(row.stem), row.layout) == ("f", "{}", b"stem", '{"a.x": [1]}')
        assert store.release("f", 1) == model(1)


def test_a_new_stem_begins_with_the_next_release(store: Store) -> None:
    """Versions never go back, and what was learned over another stem is neither a base nor rebuilt."""
    accepted(store, 1)
    waiting, body = update(2)
    store.journal.receive(waiting, body)
    assert store.begin_family("f", "{}", model(7), b"stem 2").version == 3
    assert store.release("f", 2) is None
    assert (store.journal.accepted_arrivals("f"), store.journal.folded("f"), store.journal.pending()) == ([], {}, [])
    verdict = store.journal.verdict_of(waiting.id)
    assert verdict is not None
    assert verdict.reason.startswith("need_full: family f begins with release 3")


def test_the_newest_family_is_the_one_begun_last(store: Store) -> None:
    """An operator may go back to a family, whose numbering goes on."""
    assert store.begin_family("g", "{}", model(1), b"stem").version == 1
    assert store.begin_family("f", "{}", model(2), b"stem").version == 2
    row = store.family()
    assert row is not None
    assert row.family == "f"
    with pytest.raises(StoreError, match="no release of family h"):
        store.latest("h")


def test_scores_stay_with_their_release(store: Store) -> None:
    """The history of a family tells how good each release was."""
    accepted(store, 1)
    store.note_scores("f", 2, {"acc2": 0.75})
    assert [(r.version, r.update_id, r.scores) for r in store.releases("f")] == [
        (1, "", {}),
        (2, update(1)[0].id, {"acc2": 0.75}),
    ]


# -- updates --------------------------------------------------------------------------
def test_an_offer_becomes_a_row() -> None:
    """Nothing that an offer says about its update is lost on the way to the ledger."""
    row, body = update(3)
    fields = {name: getattr(row, name) for name in UpdateRow.__slots__ if name not in ("edge", "received_at")}
    assert UpdateRow.of("e1", UpdateOffer(**fields, inline=body), 1e9 + 3) == row


def test_a_received_update_waits(store: Store) -> None:
    """A crash after the journal and before the fold loses nothing."""
    rows = [update(number) for number in (2, 1, 3)]
    for row, body in rows:
        store.journal.receive(row, body)
    assert store.journal.pending() == [row for row, _ in rows]
    assert store.journal.body_of(rows[0][0].sha256) == rows[0][1]
    assert store.journal.verdict_of(rows[0][0].id) == VerdictRow("received", "", None)
    assert store.journal.verdict_of("unknown") is None


def test_an_update_is_accepted_once(store: Store) -> None:
    """An update that is offered or folded twice makes one release."""
    row, body = update(1)
    store.journal.receive(row, body)
    release = store.journal.accept(row.id, [model(1)], 5)
    store.journal.receive(row, body)
    store.journal.refuse(row.id, "too late")
    assert store.journal.accept(row.id, [model(9)], 6) == release
    assert store.journal.verdict_of(row.id) == VerdictRow("accepted", "", 2)
    assert (store.latest("f"), store.journal.pending()) == (release, [])


def test_a_refused_update_stays_refused(store: Store) -> None:
    """A verdict that was told to an edge is final."""
    row, body = update(1)
    store.journal.receive(row, body)
    store.journal.refuse(row.id, "not finite")
    assert store.journal.verdict_of(row.id) == VerdictRow("refused", "not finite", None)
    with pytest.raises(StoreError, match="was refused"):
        store.journal.accept(row.id, [model(1)], 0)
    with pytest.raises(StoreError, match="never received"):
        store.journal.accept("unknown", [model(1)], 0)
    assert store.latest("f").version == 1


def test_a_body_must_have_its_hash(store: Store) -> None:
    """What is journalled is what was offered."""
    with pytest.raises(ValueError, match="does not have its hash"):
        store.journal.receive(update(1)[0], b"something else")
    assert store.journal.pending() == []


def test_the_newest_update_of_each_edge_rebuilds_the_state(store: Store) -> None:
    """After a restart each edge counts with its newest update, in the order they were folded."""
    accepted(store, 1, edge="e1")
    accepted(store, 2, edge="e2")
    accepted(store, 3, edge="e1", base=3)
    assert [row for row, _ in store.journal.accepted_arrivals("f")] == [update(2, edge="e2")[0], update(3, base=3)[0]]
    assert store.journal.folded("f") == {"e1": update(3)[0].id, "e2": update(2)[0].id}


# -- pruning --------------------------------------------------------------------------
def test_prune_keeps_what_is_needed(store: Store) -> None:
    """A slow edge's base outlives newer releases, so that its update still counts after a restart."""
    accepted(store, 1, edge="slow", base=1)
    for number in range(2, 9):
        accepted(store, number, edge="fast", base=number)
    waiting, body = update(9, edge="fast", base=4)
    store.journal.receive(waiting, body)
    store.prune("f", 2)
    assert [version for version in range(1, 11) if store.release("f", version)] == [1, 4, 8, 9]
    assert len(store.releases("f")) == 9
    named = {digest(b"stem"), *(update(n)[0].sha256 for n in (1, 8, 9)), *(digest(model(v)) for v in (0, 3, 7, 8))}
    assert {path.name for path in store.blobs.directory.iterdir()} == named
    assert [row.edge for row, _ in store.journal.accepted_arrivals("f")] == ["slow", "fast"]


def test_prune_spares_a_blob_with_two_names(store: Store) -> None:
    """Two releases with the same weights are one file."""
    for number in range(1, 4):
        row, body = update(number, base=number)
        store.journal.receive(row, body)
        store.journal.accept(row.id, [model(0)], 0)
    store.prune("f", 1)
    assert store.release("f", 4) == model(0)
    assert store.release("f", 1) is None


def test_leftovers_go_at_the_next_opening(tmp_path: Path) -> None:
    """A model that was written but never committed takes no space for ever."""
    with Store.open(tmp_path, durable=False) as store:
        store.begin_family("f", "{}", model(0), b"stem")
        orphan = store.blobs.put(b"never committed")
        (store.blobs.directory / "torn.new").write_bytes(b"x")
    with Store.open(tmp_path, durable=False) as store:
        assert not store.blobs.has(orphan)
        assert len(list(store.blobs.directory.iterdir())) == 2


def test_what_came_in_part_is_bounded(store: Store) -> None:
    """Edges that begin a large update and vanish do not fill the disk; one that is on its way is left alone."""
    folder = store.blobs.directory
    for number in range(4):
        for suffix in (".part", ".map"):
            path = folder / f"{number}{suffix}"
            path.touch()
            os.utime(path, (number, number))
    store.blobs.transfers["0"] = None  # type: ignore[assignment]
    store.files.keep_parts(1)
    assert sorted(path.name for path in folder.glob("*.part")) == ["0.part", "3.part"]
    assert sorted(path.name for path in folder.glob("*.map")) == ["0.map", "3.map"]


# -- trouble --------------------------------------------------------------------------
def test_a_second_cloud_is_told_the_directory(store: Store, tmp_path: Path) -> None:
    """Two clouds on one directory would number releases twice."""
    with pytest.raises(StoreError, match=f"{tmp_path} is held by another cloud: stop it"), Store.open(tmp_path):
        pass


def test_a_damaged_ledger_says_what_to_do(tmp_path: Path) -> None:
    """A broken disk ends in a sentence, not in a traceback."""
    (tmp_path / "ledger.sqlite").write_bytes(b"this is no database at all " * 99)
    with pytest.raises(StoreError, match=r"is damaged .*backup, or move it away"), Store.open(tmp_path):
        pass


def test_a_newer_ledger_is_left_alone(tmp_path: Path) -> None:
    """An older program does not write into what it does not know."""
    ledger = sqlite3.connect(tmp_path / "ledger.sqlite")
    ledger.execute("PRAGMA user_version = 99")
    ledger.close()
    with pytest.raises(StoreError, match="of ledger version 99"), Store.open(tmp_path):
        pass


def test_a_held_ledger_says_who_must_end(store: Store, tmp_path: Path) -> None:
    """A forgotten database shell is named as the reason."""
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.ledger.connection.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(StoreError, match="locked: end the program that holds it"):
        store.journal.refuse("x", "y")
    other.close()
    accepted(store, 1)


def test_a_missing_body_says_what_to_do(store: Store) -> None:
    """A deleted file is found before it is folded."""
    row, body = update(1)
    store.journal.receive(row, body)
    store.blobs.path(row.sha256).unlink()
    with pytest.raises(StoreError, match=r"is missing: bring .* back from a backup"):
        store.journal.body_of(row.sha256)


def test_a_torn_blob_is_written_again(store: Store) -> None:
    """A pulled file that lost its content in a power cut is not taken for the body."""
    row, body = update(1)
    store.blobs.path(row.sha256).write_bytes(b"")
    store.journal.receive(row, body)
    assert store.journal.body_of(row.sha256) == body


# -- SIGKILL --------------------------------------------------------------------------
# Each update adds one to the model, so the model tells how many were applied; a line on stdout is a verdict told.
FOLDER = """
import sys, time
from pathlib import Path
import numpy as np
from cloud_aggregator.store import Store, UpdateRow
from megace2_iot.blobs import digest
from megace2_iot.tensors import decode_tensors, encode_tensors, tensor_parts

def fold(store, row):
    newest = store.latest("f")
    tensors, _ = decode_tensors(store.release("f", newest.version))
    assert store.journal.body_of(row.sha256)
    release = store.journal.accept(row.id, tensor_parts({"a.x": tensors["a.x"] + 1}, {}), time.time())
    print(row.id, release.version, flush=True)
    store.prune("f", 3)

with Store.open(Path(sys.argv[1])) as store:
    if store.family() is None:
        store.begin_family("f", "{}", encode_tensors({"a.x": np.zeros(1000, np.float32)}, {}), b"stem")
    for row in store.journal.pending():
        fold(store, row)
    while True:
        body = str(time.time_ns()).encode()
        row = UpdateRow(digest(body), "e1", "f", store.latest("f").version, 1, {"a": 1}, "int8", digest(body),
                        len(body), time.time())
        store.journal.receive(row, body)
        fold(store, row)
"""


def killed_after(directory: Path, seconds: float) -> list[list[str]]:
    """Run the folding loop, kill it without warning `seconds` after its first verdict; the verdicts it told."""
    command = [sys.executable, "-c", FOLDER, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.kill()
        told = first + process.stdout.read()
    return [line.split() for line in told.splitlines() if line.count(" ") == 1 and line.split()[1:]]


def test_sigkill_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """Whenever the cloud dies, what it accepted was applied once, and versions count on without a gap."""
    told, dice = [], random.Random(1)
    for _ in range(6):
        told += killed_after(tmp_path, dice.uniform(0.01, 0.15))
    with Store.open(tmp_path) as store:
        releases = store.releases("f")
        assert [release.version for release in releases] == list(range(1, len(releases) + 1))
        assert len({release.update_id for release in releases}) == len(releases)
        for update_id, version in told:
            assert store.journal.verdict_of(update_id) == VerdictRow("accepted", "", int(version))
        newest = store.release("f", len(releases))
        assert newest is not None
        assert decode_tensors(newest)[0]["a.x"].tolist() == [len(releases) - 1] * 1000
        assert len(store.journal.pending()) <= 1
    assert len(told) > 6
