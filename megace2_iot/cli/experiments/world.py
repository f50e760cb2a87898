"""What all of a simulated site shares: the clock, the learner, settings, and the bytes that were sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_gateway.learning import LearningSettings
from megace2_iot.cli.experiments.clock import Clock
from megace2_iot.cli.experiments.fleet import FleetSettings
from megace2_iot.cli.experiments.learners import Learner
from megace2_iot.tensors import tensor_parts


@dataclass(slots=True)
class Traffic:
    """Bytes of models and updates as each receiver got them; offers, verdicts and pointers are left out."""

    device_up: int = 0
    device_down: int = 0
    edge_up: int = 0
    edge_down: int = 0

    @property
    def total(self) -> int:
        return self.device_up + self.device_down + self.edge_up + self.edge_down


@dataclass(slots=True, eq=False)
class World:
    """One site. `trained` counts the device-rounds, `missed` those that a busy device left out."""

    learner: Learner
    fleet: FleetSettings
    learning: LearningSettings
    seed: int
    clock: Clock = field(default_factory=Clock)
    traffic: Traffic = field(default_factory=Traffic)
    trained: int = 0
    missed: int = 0
    release_bytes: int = 0

    def __post_init__(self) -> None:
        tensors = self.learner.layout.unflatten(self.learner.first)
        self.release_bytes = sum(
            len(part) if isinstance(part, bytes) else part.nbytes for part in tensor_parts(tensors, {})
        )
