"""One measured figure of an attack or a defence, and the codings that each is measured at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from device_agent.compression import LADDER, thin
from device_agent.noise import with_noise
from edge_gateway.scheduling import SchedulingSettings
from megace2_iot.quantize import dequantize, quantize

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was `found` of what was tried; `guess` is what somebody reaches who has seen nothing."""

    tried: str
    source: str  # what the attacker has, or the option
    coding: str
    measure: str
    found: float
    guess: float | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Equal for the same figure of another seed."""
        return self.tried, self.source, self.coding, self.measure

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Coding:
    """How values are coded before they are sent."""

    name: str
    bound: float = 0.0  # 0: float32
    thin: int = 1  # rows averaged
    noise: float = 0.0  # part of each channel's deviation, of rows

    def of_embedded(self, values: Array) -> Array:
        """What an edge reads of values that are not averaged any more."""
        return dequantize(quantize(values, self.bound)) if self.bound else values

    def of_rows(self, rows: Array) -> Array:
        """Rows of features, averaged and made noisy first; equal rows get equal noise."""
        random = np.random.default_rng(len(rows))
        return self.of_embedded(with_noise(thin(rows, self.thin), self.noise, random))


BOUND = SchedulingSettings().relative_bound
EXACT = Coding("float32")
RUNGS = [Coding(rung.name, rung.bound(BOUND), rung.thin) for rung in LADDER if not rung.shed]
WHOLE = [EXACT, *(rung for rung in RUNGS if rung.thin == 1), Coding("busy edge", 2 * BOUND)]  # words are never averaged
NOISY = [Coding(f"bound, noise {part:g}", BOUND, noise=part) for part in (0.3, 1.0, 3.0)]
THINNED = [EXACT, *(rung for rung in RUNGS if rung.name in ("bound", "half", "quarter")), *NOISY]
COARSE = [Coding(f"{100 * bound:g} %", bound) for bound in (0.1, 0.25, 0.5)]  # `[edge.scheduling] relative_bound`
USUAL = Coding("bound", BOUND)
