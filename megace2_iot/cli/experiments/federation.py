"""A whole site under a virtual clock: devices, edges and a cloud that learn as the tiers do, without a broker.

Rounds, rules, delta codec, training and adapters are the tiers' own classes. Simulated are time (training, links, who
leaves) and messages, which here are calls; docs/simulation.md has the list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from edge_gateway.learning import LearningSettings
from megace2_iot.cli.experiments.cloud import cloud_of
from megace2_iot.cli.experiments.device import SimulatedDevice
from megace2_iot.cli.experiments.edge import SimulatedEdge
from megace2_iot.cli.experiments.fleet import FleetSettings, draw
from megace2_iot.cli.experiments.learners import Learner
from megace2_iot.cli.experiments.world import World
from megace2_iot.parameters import Vector


class Row(NamedTuple):
    """Which sample of a data set an example is, and of which video or stream."""

    id: str
    group: str


@dataclass(frozen=True, slots=True)
class EdgeData:
    """Samples of one edge: each device's private ones, the two halves of its labelled store, and held-out ones.

    `rows` say which the held-out ones are.
    """

    devices: tuple[Sequence[Any], ...]
    fit: Sequence[Any] = ()
    gate: Sequence[Any] = ()
    held_out: Sequence[Any] = ()
    rows: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class FederationSettings:
    """How a site learns; `rule` is one of the aggregator's, or `sync`."""

    rule: str = "latched"
    fleet: FleetSettings = field(default_factory=FleetSettings)
    learning: LearningSettings = field(default_factory=LearningSettings)
    tuning_steps: int = 0  # of each edge's adapter for each release


@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """A release at virtual time `at` (s): its model (P,), who reported, and what it had cost until then."""

    version: int
    vector: Vector
    at: float
    edge: str  # "" for release 1
    num_examples: Mapping[str, float]  # behind the update that made it
    rounds: float  # closed, in the mean over edges
    bytes: int


Watch = Callable[[Release], object]


class Federation:
    """One site; `watch` sees every release, the first one too."""

    def __init__(
        self, learner: Learner, data: Sequence[EdgeData], settings: FederationSettings, seed: int, watch: Watch
    ) -> None:
        """Raises ValueError where the data are of another site, or the rule is unknown."""
        fleet = settings.fleet
        shape = [len(edge.devices) for edge in data]
        if shape != [fleet.devices] * fleet.edges:
            raise ValueError(f"data for {shape} devices at a site of {fleet.edges} edges with {fleet.devices} each")
        self.world, self._watch = World(learner, fleet, settings.learning, seed), watch
        names = [f"edge-{number}" for number in range(1, fleet.edges + 1)]
        self.cloud = cloud_of(settings.rule, names, learner.layout, learner.first)
        self.edges: list[SimulatedEdge] = []
        for name, machines, own in zip(names, draw(fleet, seed), data, strict=True):
            devices = [
                SimulatedDevice(self.world, f"{name}-device-{n}", len(self.edges) * fleet.devices + n, traits, examples)
                for n, (traits, examples) in enumerate(zip(machines.devices, own.devices, strict=True), 1)
            ]
            self.edges.append(
                SimulatedEdge(
                    self.world,
                    name,
                    machines.edge,
                    devices,
                    own.fit,
                    self.cloud,
                    self._released,
                    tuning_steps=settings.tuning_steps,
                )
            )

    def run(self, seconds: float = math.inf, *, releases: int | None = None) -> None:
        """Learn for `seconds` of virtual time, or until there are that many releases."""
        clock = self.world.clock
        self._last = releases
        self._release("", {})
        for edge in self.edges:
            clock.at(0.0, edge.lesson)
        clock.run(seconds)

    def figures(self) -> dict[str, float]:
        """What the run came to."""
        counters = {name: sum(e.rounds.counters[name] for e in self.edges) for name in self.edges[0].rounds.counters}
        world = self.world
        return {
            "releases": self.cloud.newest,
            "virtual_seconds": world.clock.now,
            "device_rounds": world.trained,
            "rounds_missed": world.missed,
            **{f"rounds_{name}": count for name, count in counters.items()},
            "updates_refused": sum(edge.refused for edge in self.edges),
            **{f"bytes_{name}": count for name, count in asdict(world.traffic).items()},
        }

    def _released(self, sender: str, num_examples: Mapping[str, float]) -> None:
        """The cloud has released: everybody hears of it."""
        self._release(sender, num_examples)
        if self._last is not None and self.cloud.newest >= self._last:
            self.world.clock.stop()
            return
        for edge in self.edges:
            if edge.name != sender:  # who offered it goes on by itself
                self.world.clock.after(self.world.fleet.latency, edge.news)

    def _release(self, sender: str, num_examples: Mapping[str, float]) -> None:
        vector = self.cloud.vector(self.cloud.newest)
        assert vector is not None
        closed = sum(edge.rounds.counters["closed"] for edge in self.edges)
        world = self.world
        self._watch(
            Release(
                self.cloud.newest,
                vector,
                world.clock.now,
                sender,
                num_examples,
                closed / len(self.edges),
                world.traffic.total,
            )
        )
