"""Two ways on the same held-out samples: how their accuracies differ, and how far chance goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from megace2_iot.cli.experiments.federation import Row
from megace2_iot.cli.experiments.statistics import Interval, bootstrap

Answers = Mapping[str, Sequence[Any]]  # by a sample's id: its group, its true score, and the answer


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of one way minus another's, with intervals over rows, and over groups (videos) drawn whole."""

    by_row: Interval
    by_group: Interval
    rows: int
    groups: int
    seeds: int

    def to_json(self) -> dict[str, Any]:
        """For a report."""
        named = {name: getattr(self, name)._asdict() for name in ("by_row", "by_group")}
        return {**asdict(self), **named}

    def __str__(self) -> str:
        over = [
            f"{interval.low:+.3f} to {interval.high:+.3f} over {count:,} {what}"
            for interval, count, what in (
                (self.by_row, self.rows, "held-out samples"),
                (self.by_group, self.groups, "videos or streams drawn whole"),
            )
        ]
        return f"{self.by_row.mean:+.3f} (95 % interval {', '.join(over)}; {self.seeds} seeds)"


def answers_of(rows: Sequence[Row], truth: Sequence[float], answers: Sequence[float]) -> dict[str, list[Any]]:
    """`Answers`, ready for JSON."""
    return {
        row.id: [row.group, round(float(score), 4), round(float(answer), 4)]
        for row, score, answer in zip(rows, truth, answers, strict=True)
    }


def difference(pairs: Iterable[tuple[str, Answers, Answers]]) -> Difference | None:
    """`pairs` are one seed's each: the data's digest, our answers, and the other way's; None where there are none.

    Where several seeds have the same data, a row counts once, with its mean over them.
    """
    found, groups, seeds = defaultdict[tuple[str, str], list[int]](list), dict[tuple[str, str], tuple[str, str]](), 0
    for digest, ours, others in pairs:
        seeds += 1
        for id, (group, truth, answer) in ours.items():
            found[digest, id].append(_hit(answer, truth) - _hit(others[id][2], truth))
            groups[digest, id] = digest, group
    if not found:
        return None
    means, clusters = [sum(each) / len(each) for each in found.values()], list(groups.values())
    return Difference(bootstrap(means), bootstrap(means, clusters), len(means), len(set(clusters)), seeds)


def _hit(answer: float, truth: float) -> int:
    return int((answer >= 0) == (truth >= 0))
