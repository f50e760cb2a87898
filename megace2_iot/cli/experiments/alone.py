"""The two ways without a federation: all data in one place, and every device by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_gateway.learning import LearningSettings, round_training
from megace2_iot.cli.experiments.federation import EdgeData, Release
from megace2_iot.cli.experiments.fleet import FleetSettings, Traits, draw
from megace2_iot.cli.experiments.judge import Judge
from megace2_iot.cli.experiments.learners import Learner
from megace2_iot.cli.experiments.torch_learner import scores_of
from megace2_iot.datasets.metrics import metrics

CLOUD_SPEEDUP = 16.0  # of the cloud's steps over the median device's


def centralised(
    learner: Learner,
    data: Sequence[EdgeData],
    fleet: FleetSettings,
    learning: LearningSettings,
    seed: int,
    *,
    rounds: int,
    judge: Judge,
) -> None:
    """The cloud trains on everything, which the devices sent as raw float32 first; a round's training a release."""
    everything = [example for edge in data for share in edge.devices for example in share]
    sizes = [[_size(share) for share in edge.devices] for edge in data]
    machines = draw(fleet, seed)
    at = max(m.upload(n) for ms, ns in zip(machines, sizes, strict=True) for m, n in zip(ms.devices, ns, strict=True))
    sent, vector = sum(map(sum, sizes)), learner.first
    judge(Release(1, vector, 0.0, "", {}, 0.0, 0))
    for number in range(1, rounds + 1):
        trained = learner.train(vector, everything, number, round_training(learning, number), None)
        vector = vector + trained.delta
        at += trained.steps * fleet.seconds_per_step / CLOUD_SPEEDUP
        judge(Release(number + 1, vector, at, "cloud", trained.num_examples, number, sent))


def _size(share: Sequence[Any]) -> int:
    return sum(int(values.nbytes) for example in share for values in example.z.values())


def local_only(
    learner: Learner,
    data: Sequence[EdgeData],
    fleet: FleetSettings,
    learning: LearningSettings,
    seed: int,
    *,
    seconds: float,
    every: float,
) -> list[dict[str, Any]]:
    """Nobody sends anything: at each moment the mean over devices, each on its own edge's held-out samples."""
    histories = [
        _one(learner, share, edge, traits, learning, seconds)
        for machines, edge in zip(draw(fleet, seed), data, strict=True)
        for traits, share in zip(machines.devices, edge.devices, strict=True)
    ]
    points: list[dict[str, Any]] = []
    for at in np.arange(0.0, max(h[-1]["at"] for h in histories) + every, every):
        now = [max((p for p in h if p["at"] <= at), key=lambda p: float(p["at"])) for h in histories]
        mean = {name: float(np.mean([p[name] for p in now])) for name in ("rounds", "acc2", "f1", "mae")}
        per_edge = np.array([p["acc2"] for p in now]).reshape(fleet.edges, fleet.devices).mean(axis=1)
        points.append(
            {"version": len(points) + 1, "at": float(at), "bytes": 0, "drift": None, "edges": per_edge.tolist(), **mean}
        )
    return points


def _one(
    learner: Learner,
    share: Sequence[Any],
    edge: EdgeData,
    traits: Traits,
    learning: LearningSettings,
    seconds: float,
) -> list[dict[str, float]]:
    """One device's scores after each of its own rounds."""
    vector, truth, history = learner.first, scores_of(edge.held_out), list[dict[str, float]]()

    def note(at: float) -> None:
        found = metrics(learner.answers(vector, edge.held_out), truth)
        history.append({"at": at, "rounds": len(history), "acc2": found.acc2, "f1": found.f1, "mae": found.mae})

    note(0.0)
    while history[-1]["at"] < seconds:
        number = len(history)
        trained = learner.train(vector, share, number, round_training(learning, number), None)
        vector = vector + trained.delta
        note(history[-1]["at"] + trained.steps * traits.step + learning.min_pause)
    return history
