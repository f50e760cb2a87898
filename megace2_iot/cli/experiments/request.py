"""What an experiment is asked for, and how large a site it simulates."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_gateway.learning import LearningSettings
from megace2_iot.cli.experiments.fleet import FleetSettings
from megace2_iot.datasets.splits import WAYS

SPLITS = (*WAYS, "time")
RATES, USERS = (1.0, 5.0, 20.0, 100.0), (1, 10, 50)  # Mbit/s and users of table 3
MOST_USERS = 200  # of one process, each with a connection and a thread of its own
QUICK_RATES, QUICK_USERS = (5.0, 20.0), (1, 10)

# of a round, by preset; smooth L1 as in the demo: under L1 a base wanders between the opinions of raters
TRAINING: dict[str, dict[str, float | int | str]] = {
    "nano": {"learning_rate": 2e-3, "epochs": 2, "loss": "smooth_l1"},
    "mult": {"learning_rate": 1e-3, "epochs": 1, "loss": "smooth_l1"},
}


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of every run: virtual seconds, s between two scores, and how often centralised training trains."""

    edges: int
    devices: int  # of each edge
    samples: int  # of a stream of the built-in corpus
    seconds: float
    every: float
    central_rounds: int


QUICK = Scale(edges=2, devices=3, samples=25, seconds=60.0, every=4.0, central_rounds=8)
FULL = Scale(edges=3, devices=4, samples=50, seconds=300.0, every=5.0, central_rounds=12)


@dataclass(frozen=True, slots=True)
class Link:
    """What table 3 is asked for; empty are the rates and users of its size."""

    rates: tuple[float, ...] = ()  # Mbit/s
    users: tuple[int, ...] = ()
    clips: Path | None = None
    delay: float = 0.01  # s one way
    cloud_delay: float = 0.0  # s one way more, to the cloud that does everything
    cloud_cores: int = 0  # processors of its own that extraction is replayed on there; 0: it runs on this machine's

    def __post_init__(self) -> None:
        if any(rate <= 0 for rate in self.rates):
            raise ValueError("--rates: each is above 0 Mbit/s")
        if any(not 1 <= users <= MOST_USERS for users in self.users):
            raise ValueError(f"--users: each is from 1 to {MOST_USERS}")


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line says. `alpha` deals by label, Dirichlet(alpha); None deals whole sites and streams.

    `edges` and `devices` (of each edge) are the scale's where they are None; `split` and `vectors` are those of
    `megace2_iot.datasets.load`, and `time` (docs/simulation.md).
    """

    out: Path
    data: str = "synthetic"
    seeds: int = 3
    alpha: float | None = None
    preset: str = "nano"
    quick: bool = False
    drop_out: float = 0.0  # chance that a device leaves in the middle of a round
    late: float = 0.0  # chance that a training takes five times as long
    edges: int | None = None
    devices: int | None = None
    split: str = "official"
    vectors: Path | None = None
    show: bool = False  # run nothing: report what is finished
    link: Link = Link()  # of table 3 alone
    command: str = ""

    def __post_init__(self) -> None:
        if self.preset not in TRAINING:
            raise ValueError(f"--preset {self.preset}: choose one of {', '.join(TRAINING)}")
        if self.alpha is not None and self.alpha <= 0:
            raise ValueError(f"--alpha {self.alpha}: it is above 0")
        if self.split not in SPLITS:
            raise ValueError(f"--split {self.split}: choose one of {', '.join(SPLITS)}")

    @property
    def scale(self) -> Scale:
        scale = QUICK if self.quick else FULL
        return replace(scale, edges=self.edges or scale.edges, devices=self.devices or scale.devices)

    def at_site(self, edges: int, devices: int) -> Request:
        """The same for a site of that size, where none was asked for."""
        return replace(self, edges=self.edges or edges, devices=self.devices or devices)

    @property
    def fleet(self) -> FleetSettings:
        scale = self.scale
        return FleetSettings(edges=scale.edges, devices=scale.devices, drop_out=self.drop_out, late=self.late)

    def learning(self, **training: float | int | str) -> LearningSettings:
        """The tiers' own settings, with the demo's training and `training` over it."""
        return LearningSettings(training={**TRAINING[self.preset], **training})

    def settings(self) -> dict[str, Any]:
        """All that a run's result follows from besides arm, seed and data."""
        learning = self.learning().model_dump()
        return {
            "scale": asdict(self.scale),
            "fleet": asdict(self.fleet),
            "learning": learning,
            "preset": self.preset,
            "alpha": self.alpha,
            "split": self.split,
            "vectors": self.vectors and self.vectors.name,
        }
