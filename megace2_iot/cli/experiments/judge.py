"""How good the releases of a run are: each held-out sample answered by what would answer it; how much that moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from megace2_iot.cli.experiments.federation import EdgeData, Release
from megace2_iot.cli.experiments.finished import Tell, silent
from megace2_iot.cli.experiments.learners import Learner
from megace2_iot.cli.experiments.torch_learner import TorchLearner, scores_of
from megace2_iot.datasets.metrics import metrics
from megace2_iot.parameters import Vector

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """One scored model of a run: when, after how many rounds (mean over edges) and bytes, and how good.

    `edges` are accuracies on each edge's own held-out samples. `drift` is the mean square change of the answers since
    the point before.
    """

    version: int
    at: float
    rounds: float
    bytes: int
    acc2: float
    f1: float
    mae: float
    edges: tuple[float, ...]
    drift: float | None


class Judge:
    """Scores a release no sooner than `every` s of virtual time after the last one, and the newest at the end."""

    def __init__(self, learner: Learner, data: Sequence[EdgeData], every: float, tell: Tell = silent) -> None:
        self._learner, self._data, self._every, self._tell = learner, data, every, tell
        self.points: list[Point] = []
        self.steps: list[float] = []  # root mean square change of the model's values, from version to version
        self._last: Release | None = None
        self._answers: Array | None = None

    def __call__(self, release: Release) -> None:
        """Take the next release."""
        if self._last is not None:
            self.steps.append(float(np.sqrt(np.mean((release.vector - self._last.vector) ** 2))))
        self._last = release
        if not self.points or release.at - self.points[-1].at >= self._every:
            self._score(release)

    def finish(self) -> None:
        """Score the last release, where it was not."""
        if self._last is not None and (not self.points or self.points[-1].version != self._last.version):
            self._score(self._last)

    def _score(self, release: Release) -> None:
        answers = self.answer(release)
        parts = np.split(answers, np.cumsum([len(edge.held_out) for edge in self._data])[:-1])
        truths = [scores_of(edge.held_out) for edge in self._data]
        whole = metrics(answers, np.concatenate(truths))
        self.points.append(
            Point(
                release.version,
                release.at,
                release.rounds,
                release.bytes,
                whole.acc2,
                whole.f1,
                whole.mae,
                tuple(hits(part, truth) for part, truth in zip(parts, truths, strict=True)),
                None if self._answers is None else float(np.mean((answers - self._answers) ** 2)),
            )
        )
        self._answers = answers
        self._tell(f"{release.at:.0f} virtual s, release {release.version}, accuracy {whole.acc2:.3f}")

    def answer(self, release: Release) -> Array:
        """Scores of all held-out samples, edge after edge, by the global model."""
        return self._learner.answers(release.vector, [e for edge in self._data for e in edge.held_out])

    def result(self) -> dict[str, Any]:
        """The curve, ready for JSON."""
        drifts = [p.drift for p in self.points if p.drift is not None]
        return {
            "points": [asdict(point) for point in self.points],
            "step_rms": float(np.mean(self.steps)) if self.steps else None,
            "answer_drift": float(np.mean(drifts)) if drifts else None,
        }


class AdapterJudge(Judge):
    """Lets each edge answer its own samples with a new adapter over the release, where its gate says so."""

    def __init__(
        self,
        learner: TorchLearner,
        data: Sequence[EdgeData],
        every: float,
        tell: Tell = silent,
        *,
        placement: str,
        settings: dict[str, Any],
    ) -> None:
        super().__init__(learner, data, every, tell)
        self._model, self._placement, self._settings = learner, placement, settings

    def answer(self, release: Release) -> Array:
        return np.concatenate([self._of_edge(release.vector, release.version, edge) for edge in self._data])

    def _of_edge(self, vector: Vector, version: int, edge: EdgeData) -> Array:
        judged = self._model.personalise(vector, edge.fit, edge.gate, self._placement, self._settings, version)
        if judged["gate"] != "adapter":
            return self._model.answers(vector, edge.held_out)
        return self._model.adapted_answers(vector, judged["adapter"], self._placement, edge.held_out)


def hits(answers: Array, truth: Array) -> float:
    """Accuracy of signs, 0 counted as positive."""
    return float(np.mean((answers >= 0) == (truth >= 0)))
