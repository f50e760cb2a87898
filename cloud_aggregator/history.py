"""The ledger as people read it: every update ever offered, every release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloud_aggregator.ledger import Ledger
from cloud_aggregator.rows import Word
from megace2_iot.problems import Problem

SHORTEST = 4  # characters of an id that may stand for it
_ENTRY = """id, edge, family, base_version, round, num_examples, codec, size, received_at, decided_at, norm, lag,
    verdict, reason, version"""
_RELEASE = """r.version, r.created_at, r.source, r.kept, r.standing, r.version >= f.since, r.scores, u.edge, u.id"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One update: who, when, from which base, with what behind it, and what became of it."""

    id: str
    edge: str
    family: str
    base_version: int
    round: int
    num_examples: Mapping[str, float]
    codec: str
    size: int  # bytes
    received_at: float  # unix s
    decided_at: float | None
    norm: float | None  # L2, of the delta; None where it was never measured
    lag: int | None  # releases from its base to the newest one, when it was decided
    verdict: Word
    reason: str
    version: int | None  # the release that it became


@dataclass(frozen=True, slots=True)
class Numbered:
    """One release of the present family."""

    version: int
    created_at: float  # unix s
    source: int | None  # the release that a rollback took it from
    kept: bool  # its model is on disk
    standing: bool  # the newest release descends from it
    usable: bool  # it has the family's present stem
    scores: Mapping[str, Any]
    edge: str | None  # whose update made it
    update_id: str | None


def entries(ledger: Ledger, *, edge: str = "", verdict: str = "", limit: int = 20) -> list[Entry]:
    """The newest updates, newest first; `edge` and `verdict` choose among them where they are given."""
    query = f"""SELECT {_ENTRY} FROM updates WHERE (? = '' OR edge = ?) AND (? = '' OR verdict = ?)
        ORDER BY number DESC LIMIT ?"""
    return [_entry(row) for row in ledger.all(query, edge, edge, verdict, verdict, limit)]


def find(ledger: Ledger, start: str) -> Entry:
    """The update whose id begins so; raises `Problem` where there is none, or more than one."""
    if len(start) < SHORTEST or not start.isalnum():
        raise Problem(f"{start!r} names no update: give at least {SHORTEST} characters of its id")
    found = ledger.all(f"SELECT {_ENTRY} FROM updates WHERE id BETWEEN ? AND ? LIMIT 2", start, start + "g")
    if len(found) != 1:
        many = "more than one update has an id" if found else "no update has an id"
        raise Problem(f"{many} that begins with {start}: `megace2 updates` lists them")
    return _entry(found[0])


def releases(ledger: Ledger, limit: int = 20, version: int | None = None) -> list[Numbered]:
    """The newest releases of the family begun last, newest first; with `version` that one alone."""
    query = f"""SELECT {_RELEASE} FROM releases r JOIN families f USING(family)
        LEFT JOIN updates u ON u.id = r.update_id
        WHERE r.family = (SELECT family FROM families ORDER BY number DESC LIMIT 1) AND (? IS NULL OR r.version = ?)
        ORDER BY r.version DESC LIMIT ?"""
    return [_numbered(row) for row in ledger.all(query, version, version, limit)]


def check_rollback(ledger: Ledger, version: int) -> None:
    """Raise `Problem` where the content of this release cannot be the newest one's."""
    newest = max((release.version for release in releases(ledger, 1)), default=0)
    found = releases(ledger, 1, version)
    if not found:
        raise Problem(f"there is no release {version}: the newest is {newest}; `megace2 rollback` lists them")
    (wanted,) = found
    if version == newest:
        raise Problem(f"release {version} is the newest already")
    if not wanted.usable:
        raise Problem(f"release {version} was made for an earlier stem: no edge could run it now")
    if not wanted.kept:
        raise Problem(f"the model of release {version} was deleted: `[cloud] keep_releases` says how many are kept")


def _numbered(row: Any) -> Numbered:
    version, created_at, source, kept, standing, usable, scores, edge, update_id = row
    flags = bool(kept), bool(standing), bool(usable)
    return Numbered(version, created_at, source, *flags, json.loads(scores), edge, update_id)


def _entry(row: Any) -> Entry:
    values = list(row)
    values[5] = json.loads(values[5])
    return Entry(*values)
