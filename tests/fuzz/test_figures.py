"""Figures of a stranger: a command that watches a site outlives whatever a node says of itself."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from megace2_iot.bus import Bus, Delivery
from megace2_iot.cli.status import _row
from megace2_iot.cli.watching import Watch
from megace2_iot.messages import Health
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Topics

EMPTY = Telemetry().snapshot()
HOSTILE: list[dict[str, Any]] = [
    {"counters": {"windows_answered": "many"}},
    {"counters": []},
    {"gauges": {"outbox_windows": [1]}},
    {"histograms": [1]},
    {"histograms": {"h": {"b": [2**60, 1], "s": 0.0}}},  # whose quantile is no number of a computer's
    {"histograms": {"h": {"b": [1, -5], "s": 0.0}}},
    {"histograms": {"h": {"b": [1], "s": "x"}}},
]


@pytest.mark.parametrize("figures", HOSTILE, ids=str)
def test_a_node_with_senseless_figures_costs_its_own_row_only(figures: dict[str, Any]) -> None:
    """Protects `megace2 status` and the live view: it is counted as rejected, sums and rows are made without it."""
    topics = Topics()
    watch = Watch(cast(Bus, None), topics)
    health = Health(at=time.time(), figures={**EMPTY, **figures}, facts={"missing.cam-1": "lots"})
    for topic in (topics.edge_up("edge-1", "health"), topics.device_up("cam-1", "health", "edge-1")):
        watch.take(Delivery(topic, health.encode(), False, 0, 0))
    assert watch.rejected == 2
    watch.nodes["edge", "edge-1"].facts = dict(health.facts)
    for tier in ("device", "edge"):
        watch.total(tier).histograms.get("h")
        assert [_row(node, watch)["missing"] for node in watch.of_tier(tier)] == [0]
