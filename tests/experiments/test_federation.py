"""A simulated site: the tiers' classes agree with equation (4), bytes are real, nobody waits for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_gateway.learning import LearningSettings
from megace2_iot.cli.experiments.federation import EdgeData, Federation, FederationSettings, Release
from megace2_iot.cli.experiments.fleet import FleetSettings
from megace2_iot.cli.experiments.learners import NoOpLearner, Trained
from megace2_iot.deltas import encode_delta
from megace2_iot.parameters import Vector

SITE = FleetSettings(edges=2, devices=3)
EXACT = LearningSettings(codec="float32")


class Averager(NoOpLearner):
    """Goes to the mean of its samples in one training, so that a right global model is the mean of all."""

    def __init__(self) -> None:
        super().__init__(size=3, groups=1)

    def train(
        self, base: Vector, examples: Sequence[Any], seed: int, settings: Mapping[str, Any], memory: Vector | None
    ) -> Trained:
        wanted = np.mean(examples, axis=0).astype(np.float32)
        return Trained(wanted - base, {"group0": float(len(examples))}, steps=2)


def site_data(seed: int = 0) -> list[EdgeData]:
    """Devices with 1 to 6 samples of three numbers."""
    rng = np.random.default_rng(seed)
    return [EdgeData(tuple(list(rng.normal(size=(3 * e + d + 1, 3))) for d in range(3))) for e in range(2)]


def simulate(
    rule: str = "latched", fleet: FleetSettings = SITE, learning: LearningSettings = EXACT, seed: int = 0, **until: Any
) -> tuple[Federation, list[Release]]:
    seen: list[Release] = []
    federation = Federation(Averager(), site_data(), FederationSettings(rule, fleet, learning), seed, seen.append)
    federation.run(**(until or {"seconds": 120.0}))
    return federation, seen


def mean_of_all() -> Vector:
    samples = np.concatenate([share for edge in site_data() for share in edge.devices])
    return np.asarray(samples.mean(axis=0), np.float32)


@pytest.mark.parametrize(("rule", "releases"), [("sync", 2), ("latched", 3), ("rate", 3)])
def test_one_report_of_every_edge_is_equation_4(rule: str, releases: int) -> None:
    """From one base: the mean weighted by samples, synchronous or not."""
    _, seen = simulate(rule, releases=releases)
    np.testing.assert_allclose(seen[-1].vector, mean_of_all(), atol=1e-6)


def test_the_examples_behind_a_release_are_those_of_the_edge() -> None:
    """n_i is the samples of all devices that answered."""
    _, seen = simulate(releases=3)
    assert {r.edge: r.num_examples["group0"] for r in seen[1:]} == {"edge-1": 6.0, "edge-2": 15.0}


@pytest.mark.parametrize("rule", ["sync", "latched", "rate", "fedasync", "fedbuff"])
def test_two_runs_of_one_seed_are_equal(rule: str) -> None:
    """Bit for bit, and in virtual time; another seed gives other machines."""
    fleet = replace(SITE, drop_out=0.2, late=0.2)
    (_, one), (_, two), (_, other) = (simulate(rule, fleet, seed=seed) for seed in (0, 0, 1))
    assert [(r.at, r.bytes, r.vector.tobytes()) for r in one] == [(r.at, r.bytes, r.vector.tobytes()) for r in two]
    assert [r.at for r in one] != [r.at for r in other]
    assert len(one) > 3


def test_bytes_are_those_of_the_encoded_updates() -> None:
    """One round of one edge: three deltas up, one release down to each device, the edge's own update."""
    learning = LearningSettings(codec="int8")
    fleet = FleetSettings(edges=1, devices=3)
    learner = NoOpLearner(5000)
    delta = learner.train(learner.first, range(9), 0, {}, None).delta
    federation = Federation(
        learner, [EdgeData((range(9),) * 3)], FederationSettings("latched", fleet, learning), 0, lambda release: None
    )
    federation.run(releases=2)
    sent = federation.world.traffic
    size = len(encode_delta(delta, "int8")[0])
    assert sent.device_up == 3 * size
    assert abs(sent.edge_up - size) < 100  # of the mean of three decoded deltas: other codes, about as many bytes
    assert sent.device_down == 3 * federation.world.release_bytes > 3 * 4 * 5000
    assert sent.edge_down == 2 * federation.world.release_bytes  # release 1, and 2 which it pulls at once


def test_who_is_slow_holds_up_nobody_but_the_synchronous() -> None:
    """In the same virtual time the fast edge's devices train more often where their cloud does not wait."""
    fleet, learning = replace(SITE, edge_spread=1.5), LearningSettings(codec="float32", min_pause=0.0)
    trained = {rule: simulate(rule, fleet, learning)[0].figures()["device_rounds"] for rule in ("sync", "latched")}
    assert trained["latched"] > 1.5 * trained["sync"]


@pytest.mark.parametrize("will_after", [5.0, None])
@pytest.mark.parametrize("rule", ["sync", "latched"])
def test_devices_that_leave_do_not_hang_a_round(rule: str, will_after: float | None) -> None:
    """Their will takes them out at once; where nobody hears it, the deadline ends the round."""
    fleet = replace(SITE, drop_out=0.4, will_after=will_after)
    federation, seen = simulate(rule, fleet, seconds=600.0)
    closed = federation.figures()["rounds_closed"]
    assert closed > 6
    assert seen[-1].at > 400


def test_late_devices_join_the_next_round() -> None:
    """A delta that missed its round by one is taken at full weight."""
    learning = LearningSettings(codec="float32", min_deadline=1.0, max_deadline=2.0)
    federation, _ = simulate(fleet=replace(SITE, late=0.3, late_factor=6.0), learning=learning, seconds=600.0)
    assert federation.figures()["rounds_joined"] > 0


def test_a_device_whose_training_diverges_is_left_out() -> None:
    """Its round closes without it, and the run goes on."""

    class Diverging(Averager):
        def train(self, base: Vector, examples: Sequence[Any], *rest: Any) -> Trained:
            trained = super().train(base, examples, *rest)
            return replace(trained, delta=trained.delta * np.float32("nan")) if len(examples) == 1 else trained

    seen: list[Release] = []
    Federation(Diverging(), site_data(), FederationSettings("latched", SITE, EXACT), 0, seen.append).run(60.0)
    assert {release.num_examples["group0"] for release in seen if release.edge == "edge-1"} == {5.0}
    assert np.isfinite(seen[-1].vector).all()


def test_data_of_another_site_are_refused() -> None:
    """Before anything runs."""
    settings = FederationSettings("latched", FleetSettings(edges=3, devices=3))
    with pytest.raises(ValueError, match="3 edges with 3"):
        Federation(Averager(), site_data(), settings, 0, lambda release: None)
