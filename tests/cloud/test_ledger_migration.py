"""A ledger of an earlier program is brought up to date, and nothing in it is lost."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from folds import LAYOUT, Cloud, made

from cloud_aggregator.history import entries, releases
from cloud_aggregator.schema import SCHEMA
from cloud_aggregator.store import Store, VerdictRow
from megace2_iot.blobs import digest
from megace2_iot.tensors import encode_tensors

VERSION_1 = """
CREATE TABLE families(
    family TEXT PRIMARY KEY, config TEXT NOT NULL, stem TEXT NOT NULL, stem_size INTEGER NOT NULL,
    layout TEXT NOT NULL, since INTEGER NOT NULL, begun_at REAL NOT NULL, number INTEGER NOT NULL);
CREATE TABLE updates(
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, edge TEXT NOT NULL, family TEXT NOT NULL,
    base_version INTEGER NOT NULL, round INTEGER NOT NULL, num_examples TEXT NOT NULL, codec TEXT NOT NULL,
    sha256 TEXT NOT NULL, size INTEGER NOT NULL, received_at REAL NOT NULL, verdict TEXT NOT NULL DEFAULT 'received',
    reason TEXT NOT NULL DEFAULT '', version INTEGER, kept INTEGER NOT NULL DEFAULT 1);
CREATE INDEX updates_kept ON updates(family, verdict, edge, number) WHERE kept;
CREATE INDEX updates_waiting ON updates(number) WHERE verdict = 'received';
CREATE TABLE releases(
    version INTEGER NOT NULL, family TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    created_at REAL NOT NULL, update_id TEXT NOT NULL, scores TEXT NOT NULL DEFAULT '{}',
    kept INTEGER NOT NULL DEFAULT 1, PRIMARY KEY(family, version));
CREATE INDEX releases_kept ON releases(family, version) WHERE kept;
PRAGMA user_version = 1;
"""
FIRST, SECOND = (encode_tensors(LAYOUT.unflatten(np.full(3, n, np.float32)), {}) for n in (1, 3))
FOLDED, WAITING, REFUSED = (made([n, n, n], edge=f"e{n}", n=n) for n in (2, 4, 5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of a cloud of the earlier program: one update folded, one that waits, one refused."""
    (tmp_path / "blobs").mkdir()
    for blob in (FIRST, SECOND, b"stem", FOLDED[1], WAITING[1]):
        (tmp_path / "blobs" / digest(blob)).write_bytes(blob)
    ledger = sqlite3.connect(tmp_path / "ledger.sqlite")
    ledger.executescript(VERSION_1)
    ledger.execute("INSERT INTO families VALUES('f', '{}', ?, 4, '{}', 1, 5.0, 1)", (digest(b"stem"),))
    columns = "id, edge, family, base_version, round, num_examples, codec, sha256, size, received_at, verdict, reason"
    for (row, _), *verdict in (
        (FOLDED, "accepted", "", 2, 1),
        (WAITING, "received", "", None, 1),
        (REFUSED, "refused", "not finite", None, 0),
    ):
        values = (*row.values(), *verdict)
        ledger.execute(f"INSERT INTO updates({columns}, version, kept) VALUES(?{', ?' * 13})", values)
    for version, blob, update in ((1, FIRST, ""), (2, SECOND, FOLDED[0].id)):
        values = (version, "f", digest(blob), len(blob), 6.0, update, '{"acc2": 0.5}')
        ledger.execute("INSERT INTO releases VALUES(?, ?, ?, ?, ?, ?, ?, 1)", values)
    ledger.commit()
    ledger.close()
    return tmp_path


def test_nothing_of_an_earlier_ledger_is_lost(folder: Path) -> None:
    """Every row is there with what was known of it; what was not measured then is empty."""
    with Store.open(folder, durable=False) as store:
        found = entries(store.ledger)
        assert [(e.id, e.edge, e.verdict, e.version, e.lag, e.norm) for e in found] == [
            (REFUSED[0].id, "e5", "refused", None, None, None),
            (WAITING[0].id, "e4", "received", None, None, None),
            (FOLDED[0].id, "e2", "accepted", 2, 0, None),
        ]
        assert [e.decided_at for e in found] == [1e9, None, 1e9]
        assert [(r.version, r.edge, r.standing, r.source, r.scores) for r in releases(store.ledger)] == [
            (2, "e2", True, None, {"acc2": 0.5}),
            (1, None, True, None, {"acc2": 0.5}),
        ]
        assert store.ledger.one("PRAGMA user_version") == (SCHEMA,)


def test_an_earlier_cloud_s_work_goes_on(folder: Path) -> None:
    """Its edges count on, the update that it journalled is folded, and its releases can be chosen."""
    with Store.open(folder, durable=False) as store:
        cloud = Cloud(store)
        assert cloud.folding.live_edges == 1
        (row,) = store.journal.pending()
        assert cloud.folding.take(row, store.journal.body_of(row.sha256)).verdict == "accepted"
        np.testing.assert_allclose(cloud.model(), [(2 * 3 + 4 * 5) / 6] * 3, rtol=1e-6)
        assert store.journal.verdict_of(REFUSED[0].id) == VerdictRow("refused", "not finite", None)
        assert cloud.folding.roll_back(1).version == 4


def test_it_is_brought_up_to_date_once(folder: Path) -> None:
    """The second opening finds a ledger of today."""
    for _ in range(2):
        with Store.open(folder, durable=False) as store:
            assert len(entries(store.ledger)) == 3
