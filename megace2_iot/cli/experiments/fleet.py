"""The machines of a simulated site: how fast each computes and sends, and what befalls it; all follows from a seed.

A device's time for a step and its rates are log-normal around the settings', and an edge's devices are alike: one
edge's fleet is slow, another's fast. That is what makes waiting for all differ from waiting for nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BYTES = 1e6 / 8  # a second, of 1 Mbit/s


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """A site. Rates are of the median machine, in Mbit/s; `spread`s are deviations of the logarithm."""

    edges: int = 2
    devices: int = 4  # of each edge
    seconds_per_step: float = 0.25  # an optimiser step of the median device
    spread: float = 0.4  # of steps and rates, between the devices of one edge
    edge_spread: float = 0.6  # of steps, between edges
    edge_speedup: float = 4.0  # of the edge's own steps over the median device's
    device_up: float = 5.0
    device_down: float = 20.0
    edge_up: float = 20.0
    edge_down: float = 100.0
    latency: float = 0.01  # s that every message takes besides its bytes
    drop_out: float = 0.0  # chance that a device leaves in the middle of a round
    away: float = 60.0  # s until it is back
    will_after: float | None = 15.0  # s until its edge hears of it; None: never, only the deadline helps
    late: float = 0.0  # chance that a training takes `late_factor` times as long
    late_factor: float = 5.0


@dataclass(frozen=True, slots=True)
class Traits:
    """One machine: s a step, bytes a second up and down, s a message."""

    step: float
    up: float
    down: float
    latency: float

    def upload(self, size: int) -> float:
        """Seconds until `size` bytes have arrived."""
        return self.latency + size / self.up

    def download(self, size: int) -> float:
        """Seconds until `size` bytes are here."""
        return self.latency + size / self.down


class Machines(NamedTuple):
    """An edge and its devices."""

    edge: Traits
    devices: tuple[Traits, ...]


class Fate(NamedTuple):
    """What befalls one training: it takes `slowness` times as long, and ends after `part` of it where `leaves`."""

    slowness: float = 1.0
    leaves: bool = False
    part: float = 1.0


def draw(settings: FleetSettings, seed: int) -> list[Machines]:
    """Every edge's machines."""
    rng = np.random.default_rng([seed, 0xF1EE7])
    tempo = np.exp(rng.normal(0.0, settings.edge_spread, settings.edges))
    made = []
    for edge in range(settings.edges):
        scales = np.exp(rng.normal(0.0, settings.spread, (settings.devices, 3)))
        devices = tuple(
            Traits(
                step=settings.seconds_per_step * float(tempo[edge] * scale[0]),
                up=settings.device_up * BYTES / float(scale[1]),
                down=settings.device_down * BYTES / float(scale[2]),
                latency=settings.latency,
            )
            for scale in scales
        )
        own = Traits(
            step=settings.seconds_per_step / settings.edge_speedup,
            up=settings.edge_up * BYTES,
            down=settings.edge_down * BYTES,
            latency=settings.latency,
        )
        made.append(Machines(own, devices))
    return made


def fate(settings: FleetSettings, seed: int, device: int, round_number: int) -> Fate:
    """What befalls one device in one round, whatever befell others."""
    if not (settings.drop_out or settings.late):
        return Fate()
    late, leaves, part = np.random.default_rng([seed, device, round_number]).random(3)
    slowness = settings.late_factor if late < settings.late else 1.0
    return Fate(slowness, bool(leaves < settings.drop_out), float(part))
