"""The simulated federation without a model: device-rounds a second through rounds, codec and rule."""

from __future__ import annotations

import time

from benchmarks.rows import Row
from edge_gateway.learning import LearningSettings
from megace2_iot.cli.experiments.federation import EdgeData, Federation, FederationSettings
from megace2_iot.cli.experiments.fleet import FleetSettings
from megace2_iot.cli.experiments.learners import NoOpLearner

FLOWER = "119 to 162 clients a second of Flower 1.41's simulation engine: 1,000 parameters, a like machine"
NANO = 76_897  # parameters of `nano` on the built-in corpus


def measure() -> list[Row]:
    return [
        Row(
            "2 edges x 50 devices, 1,000 parameters, int8",
            _rate(2, 50, 1000),
            "a second",
            target=2000.0,
            side=">=",
            note=FLOWER,
        ),
        Row("the same, float32", _rate(2, 50, 1000, codec="float32"), "a second"),
        Row("8 edges x 500 devices, 1,000 parameters, int8", _rate(8, 500, 1000), "a second", target=2000.0, side=">="),
        Row("2 edges x 50 devices, the size of nano, int8", _rate(2, 50, NANO), "a second"),
        Row(
            "2 edges x 50 devices, 1,000 parameters, devices leave or are late",
            _rate(2, 50, 1000, drop_out=0.1, late=0.1),
            "a second",
        ),
    ]


def _rate(edges: int, devices: int, parameters: int, codec: str = "int8", **happens: float) -> float:
    """Device-rounds a second of some 2 s, best of 2."""
    fleet = FleetSettings(edges=edges, devices=devices, **happens)  # type: ignore[arg-type]
    settings = FederationSettings("latched", fleet, LearningSettings(codec=codec))
    data = [EdgeData(devices=(range(100),) * devices)] * edges
    best = 0.0
    for _ in range(2):
        federation = Federation(NoOpLearner(parameters), data, settings, 0, lambda release: None)
        began = time.perf_counter()
        federation.run(releases=2 + edges * max(2, 4000 // (edges * devices)))
        best = max(best, federation.world.trained / (time.perf_counter() - began))
    return best
