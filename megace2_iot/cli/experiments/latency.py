"""The pure part of table 3: which cells there are, how long each may take, and what its clips say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Arm = Literal["edge", "cloud"]
PHASES = ("t_gen", "t_trans", "queue", "t_infer", "t_trans_score")
PAUSE = 0.3  # s between a full answer and a user's next clip
STAGGER = 1.0  # s over which users begin: fifty do not speak at one instant
SATURATED = 0.9  # part of the rate from which a link counts as full
SPARE = 5.0  # s that a cell may take beyond twice what was expected
LONGEST = 240.0  # s of a cell; what is not answered by then is cut


@dataclass(frozen=True, slots=True)
class Cell:
    """One measured combination."""

    arm: Arm
    mbit_s: float
    users: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.mbit_s:g}mbit-{self.users}users"


@dataclass(frozen=True, slots=True)
class Plan:
    """How many clips each user sends, one after another, and when the cell is cut (s)."""

    rounds: int
    limit: float


def cells(rates: Iterable[float], users: Sequence[int]) -> list[Cell]:
    """Both arms at every rate (Mbit/s) with every number of users, smallest first."""
    arms: tuple[Arm, ...] = ("edge", "cloud")
    return [Cell(arm, rate, count) for rate in sorted(rates) for count in sorted(users) for arm in arms]


def plan(cell: Cell, clip_bytes: float, generation: float, cores: int, *, seconds: float, rounds: int) -> Plan:
    """The same for both arms: what fills about `seconds` in the cloud's, at least one clip of each user.

    A round in the cloud takes the longer of its bytes over the link and its extraction (`generation` s a clip) on
    `cores`.
    """
    wire = cell.users * clip_bytes * 8 / (cell.mbit_s * 1e6)
    work = cell.users * generation / cores
    expected = max(wire, work) + generation + PAUSE
    chosen = max(1, min(rounds, int(seconds / expected)))
    return Plan(chosen, min(LONGEST, 2 * chosen * expected + SPARE))


def quantile(values: Sequence[float | None], q: float) -> float | None:
    """The q-quantile of what was measured; None is longer than all, and the answer where the quantile is one."""
    ordered = sorted(math.inf if value is None else value for value in values)
    if not ordered:
        return None
    found = ordered[max(0, math.ceil(q * len(ordered)) - 1)]
    return None if math.isinf(found) else found


def told(result: Mapping[str, Any], figure: str, q: float) -> float | None:
    """A quantile of one figure of a cell's clips, in s; a phase is that of answered clips."""
    values = [clip.get(figure) for clip in result["clips"]]
    return quantile(values if figure in ("first", "full") else [v for v in values if v is not None], q)


def per_clip(result: Mapping[str, Any], way: Literal["up", "down"]) -> float | None:
    """Bytes over the link for each clip that was answered; all of them, acknowledgements and health included."""
    answered = sum(clip["full"] is not None for clip in result["clips"])
    return result[f"bytes_{way}"] / answered if answered else None


def fullness(result: Mapping[str, Any], mbit_s: float) -> float:
    """Part of the uplink's rate that was used while the cell lasted."""
    return float(result["bytes_up"] * 8 / (mbit_s * 1e6 * max(result["lasted"], 1e-9)))


def seconds(value: float | None, limit: float | None = None) -> str:
    """Seconds for a table: four digits that count; `> limit` for what was cut."""
    if value is None:
        return "-" if limit is None else f"> {limit:.0f}"
    if value < 0.1:
        return f"{value:.4f}"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def times(ours: float | None, theirs: float | None, *, at_least: float | None = None) -> str:
    """How many times larger `theirs` is; at least so many where it was cut."""
    if ours is None or (theirs is None and at_least is None):
        return "-"
    if theirs is None:
        return f"> {at_least / ours:.0f}" if at_least else "-"
    ratio = theirs / ours
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"
