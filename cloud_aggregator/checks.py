"""What the cloud makes of an update: take it, hold it for a person, or refuse it. Pure.

An offer is judged before anything else, and before its body is pulled, by `refusal`: what can never be folded is
refused. An update that could be folded but is not like its neighbours is held, by `doubts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cloud_aggregator.rows import UpdateRow
from megace2_iot.messages import NodeId
from megace2_iot.parameters import Layout
from megace2_iot.update_checks import NormBound, Objection, examples, schema


class CheckSettings(BaseModel):
    """When an update is held; 0 turns a check off."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_norm_ratio: float = Field(10.0, ge=0)  # of the median norm of the last accepted updates
    max_first_norm: float = Field(0.5, ge=0)  # of the model's own norm, before there are enough of them
    max_examples: float = Field(1e6, ge=0)  # behind a group of an update, of an edge that `volumes` does not name
    volumes: dict[
        NodeId, Annotated[float, Field(gt=0)]
    ] = {}  # by edge, the examples that it and its devices hold, as registered
    max_lag: int = Field(50, ge=0)  # releases between its base and the newest
    quarantine: int = Field(32, ge=1)  # updates held at most; the oldest of the edge that has most goes
    quarantine_bytes: int = Field(256 << 20, ge=0)  # of their deltas

    def norm_bound(self) -> NormBound:
        return NormBound(self.max_norm_ratio, self.max_first_norm)

    def volume(self, edge: str) -> float:
        """The examples that may stand behind a group of this edge's updates."""
        return self.volumes.get(edge, self.max_examples)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the cloud stands when it judges an update."""

    lag: int  # releases that the newest one stands on, made since the update's base
    recent: Sequence[float] = ()  # norms of the last accepted updates
    model: float = 0.0  # norm of the newest release; needed only where `NormBound.needs_model`


def refusal(row: UpdateRow, family: str, layout: Layout, newest: int, rolled_back: bool) -> Objection | None:
    """Why an offer can never be folded, told without its body; `rolled_back` is said of its base."""
    if row.family != family:
        return Objection("schema", f"this cloud aggregates family {family}, the update is of {row.family[:80]}")
    if found := schema(layout, row.codec, row.size, row.num_examples):
        return found
    if rolled_back:
        again = f"adopt release {newest} and train from it"
        return Objection("rolled_back", f"release {row.base_version} was taken back; {again}")
    return None


def doubts(row: UpdateRow, norm: float, standing: Standing, settings: CheckSettings) -> list[Objection]:
    """All that speaks against an update which could be folded."""
    found = [
        settings.norm_bound().check(norm, standing.recent, standing.model),
        examples(row.num_examples, settings.volume(row.edge)),
        _lag(standing.lag, settings.max_lag),
    ]
    return [objection for objection in found if objection is not None]


def _lag(lag: int, most: int) -> Objection | None:
    if not most or lag <= most:
        return None
    return Objection("lag", f"its base is {lag} releases old, allowed are {most}")


def known_groups(row: UpdateRow, layout: Layout) -> Mapping[str, float]:
    """The examples behind groups that exist: what a stranger calls others has no place in the ledger."""
    return {group: count for group, count in row.num_examples.items() if group in layout.groups}
