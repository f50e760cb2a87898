"""The ledger's tables: one script a version, run in order on what an earlier program left.

Rows are never deleted. An update and its release take some 850 bytes, blobs apart: an edge that offers one every 30 s
fills 0.9 GB in a year.
"""

from __future__ import annotations

_FIRST = """
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
"""
# restart: the release from which aggregation began anew; only what was folded after it counts.
# source: the earlier release whose content this one has, by a rollback. standing: the newest release stands on it.
_CHECKED = """
ALTER TABLE families ADD COLUMN restart INTEGER NOT NULL DEFAULT 0;
UPDATE families SET restart = since;
ALTER TABLE updates ADD COLUMN norm REAL;
ALTER TABLE updates ADD COLUMN lag INTEGER;
ALTER TABLE updates ADD COLUMN decided_at REAL;
UPDATE updates SET decided_at = received_at WHERE verdict <> 'received';
UPDATE updates SET lag = version - 1 - base_version WHERE version IS NOT NULL;
ALTER TABLE releases ADD COLUMN source INTEGER;
ALTER TABLE releases ADD COLUMN standing INTEGER NOT NULL DEFAULT 1;
DROP INDEX updates_kept;
CREATE INDEX updates_kept ON updates(family, verdict, edge, version) WHERE kept;
CREATE INDEX updates_folded ON updates(family, version) WHERE verdict = 'accepted';
CREATE TABLE requests(
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, argument TEXT NOT NULL, asked_at REAL NOT NULL,
    settled_at REAL, done INTEGER NOT NULL DEFAULT 0, told TEXT NOT NULL DEFAULT '');
CREATE INDEX requests_waiting ON requests(number) WHERE settled_at IS NULL;
"""
SCRIPTS = (_FIRST, _CHECKED)
SCHEMA = len(SCRIPTS)  # the ledger's user_version


def script_from(found: int) -> str:
    """What makes a ledger of version `found` (0: an empty file) one of this program, in one transaction."""
    return f"BEGIN IMMEDIATE; {' '.join(SCRIPTS[found:])} PRAGMA user_version = {SCHEMA}; COMMIT"
