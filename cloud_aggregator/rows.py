"""The ledger's rows as values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from megace2_iot.messages import UpdateOffer

UPDATE = "id, edge, family, base_version, round, num_examples, codec, sha256, size, received_at"
RELEASE = "family, version, sha256, size, created_at, update_id, scores, source"
FAMILY = "family, config, stem, stem_size, layout, since"
Word = Literal["received", "accepted", "quarantined", "refused", "dropped"]


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """An offer that was received from `edge` at unix time `received_at`; its delta is the blob `sha256`."""

    id: str
    edge: str
    family: str
    base_version: int
    round: int
    num_examples: Mapping[str, float]
    codec: str
    sha256: str
    size: int
    received_at: float

    @classmethod
    def of(cls, edge: str, offer: UpdateOffer, now: float) -> Self:
        counts, size = dict(offer.num_examples), offer.size
        return cls(
            offer.id, edge, offer.family, offer.base_version, offer.round, counts, offer.codec, offer.sha256, size, now
        )

    def values(self) -> list[Any]:
        """As the columns `UPDATE`."""
        values = [getattr(self, name) for name in UPDATE.split(", ")]
        values[5] = json.dumps(dict(self.num_examples))
        return values


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """What became of an update: `received` waits to be folded, `quarantined` is held for a person to look at."""

    verdict: Word
    reason: str
    version: int | None  # the release that it made


@dataclass(frozen=True, slots=True)
class Release:
    """One numbered global model; its tensors are the blob `sha256`."""

    family: str
    version: int
    sha256: str
    size: int
    created_at: float  # unix s
    update_id: str = ""  # the update that made it; empty for the first of a family, and for a rollback
    scores: Mapping[str, Any] = field(default_factory=dict)
    source: int | None = None  # of a rollback: the release whose content it has


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """An architecture, its frozen stem, and the release `since` which both hold."""

    family: str
    config: str
    stem: str
    stem_size: int
    layout: str  # JSON: shapes by name
    since: int


def update_of(row: Iterable[Any]) -> UpdateRow:
    """The update of a row of `UPDATE` columns."""
    values = list(row)
    values[5] = json.loads(values[5])
    return UpdateRow(*values)


def release_of(row: Iterable[Any]) -> Release:
    """The release of a row of `RELEASE` columns."""
    values = list(row)
    values[6] = json.loads(values[6])
    return Release(*values)
