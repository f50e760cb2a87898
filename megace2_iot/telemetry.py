"""Counters, gauges and histograms of one process: cheap to note, small to send, exact to merge."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

GROWTH = 1.04  # bucket edges grow by 4 %, so a quantile is within 2 % of the true one
_LOG = math.log(GROWTH)
FLOOR = 1e-6  # seconds; what is shorter counts as this
LAST = 10_000  # buckets either way; beyond it numbers overflow


@dataclass(slots=True)
class Histogram:
    """Durations in seconds as counts of logarithmic buckets: 1 us to 1 h in about 560."""

    counts: Counter[int] = field(default_factory=Counter)
    total: float = 0.0

    def note(self, seconds: float) -> None:
        self.counts[round(math.log(max(seconds, FLOOR)) / _LOG)] += 1
        self.total += seconds

    def __len__(self) -> int:
        return self.counts.total()

    def quantile(self, q: float) -> float | None:
        """The q-quantile (0..1) in seconds, None while empty."""
        size = len(self)
        if not size:
            return None
        rank, seen = max(1, math.ceil(q * size)), 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return math.exp(bucket * _LOG)
        return None

    def merge(self, other: Histogram) -> Histogram:
        self.counts.update(other.counts)
        self.total += other.total
        return self

    def to_wire(self) -> dict[str, Any]:
        return {"b": [value for pair in sorted(self.counts.items()) for value in pair], "s": self.total}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Histogram:
        flat = [int(value) for value in wire["b"]]
        if max(map(abs, flat[::2]), default=0) > LAST or min(flat[1::2], default=0) < 0:
            raise ValueError("no counts of durations")
        return cls(Counter(dict(zip(flat[::2], flat[1::2], strict=True))), float(wire["s"]))


@dataclass(slots=True)
class Telemetry:
    """What one node counts. Names are Prometheus names without the `megace2_` prefix; labels go into the name."""

    counters: Counter[str] = field(default_factory=Counter)
    gauges: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)

    def count(self, name: str, amount: int = 1) -> None:
        self.counters[name] += amount

    def gauge(self, name: str, value: float) -> None:
        self.gauges[name] = value

    def time(self, name: str, seconds: float) -> None:
        self.histograms.setdefault(name, Histogram()).note(seconds)

    def snapshot(self) -> dict[str, Any]:
        """The state as plain values, for a `Health` message."""
        return {
            "counters": dict(self.counters),
            "gauges": dict(self.gauges),
            "histograms": {name: histogram.to_wire() for name, histogram in self.histograms.items()},
        }

    @classmethod
    def from_snapshot(cls, snapshot: Mapping[str, Any]) -> Telemetry:
        """Another node's figures; raises ValueError for what is none."""
        try:
            histograms = {name: Histogram.from_wire(wire) for name, wire in snapshot["histograms"].items()}
            return cls(Counter(_numbers(snapshot["counters"])), _numbers(snapshot["gauges"]), histograms)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"no figures: {error!r}") from None


def _numbers(figures: Mapping[str, Any]) -> dict[str, Any]:
    if not all(isinstance(figure, int | float) and math.isfinite(figure) for figure in figures.values()):
        raise ValueError("figures that are no numbers")
    return dict(figures)


def merged(parts: Iterable[Telemetry]) -> Telemetry:
    """The sum of several nodes: counters and histograms add up, of a gauge the last value stays."""
    whole = Telemetry()
    for part in parts:
        whole.counters.update(part.counters)
        whole.gauges.update(part.gauges)
        for name, histogram in part.histograms.items():
            whole.histograms.setdefault(name, Histogram()).merge(histogram)
    return whole


@dataclass(slots=True)
class Rate:
    """Events a second over the last `window` seconds, from at most 64 readings of a counter."""

    window: float = 5.0
    readings: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=64))

    def note(self, total: float, now: float) -> float:
        self.readings.append((now, total))
        while len(self.readings) > 2 and self.readings[0][0] < now - self.window:
            self.readings.popleft()
        (first, low), (last, high) = self.readings[0], self.readings[-1]
        return (high - low) / (last - first) if last > first else 0.0


@contextlib.contextmanager
def prometheus(read: Callable[[], Telemetry], port: int, host: str = "127.0.0.1") -> Iterator[None]:
    """Serve the figures that `read` returns for Prometheus on `port` while the block runs; port 0 serves nothing."""
    if not port:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server  # 5 MB that a streaming device does not need

    registry = CollectorRegistry()
    registry.register(_Collector(read))
    server, thread = start_http_server(port, host, registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(slots=True, eq=False)
class _Collector:
    """What prometheus-client asks for at each scrape."""

    read: Callable[[], Telemetry]

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        figures = self.read()
        for name, count in sorted(figures.counters.items()):
            yield CounterMetricFamily(f"megace2_{name}", name.replace("_", " "), value=count)
        for name, value in sorted(figures.gauges.items()):
            yield GaugeMetricFamily(f"megace2_{name}", name.replace("_", " "), value=value)
        for name, histogram in sorted(figures.histograms.items()):
            title = name.replace("_", " ")
            size, total = len(histogram), histogram.total
            yield SummaryMetricFamily(f"megace2_{name}_seconds", title, count_value=size, sum_value=total)
