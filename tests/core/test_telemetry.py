"""Telemetry: quantiles that hold, merging that is exact, a wire form that comes back."""

import random
from urllib.request import urlopen

from hypothesis import given
from hypothesis import strategies as st

from megace2_iot.telemetry import Histogram, Rate, Telemetry, merged, prometheus


@given(st.lists(st.floats(1e-5, 1e3), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_two_percent(values: list[float], q: float):
    """The report's percentiles rest on buckets that grow by 4 %."""
    histogram = Histogram()
    for value in values:
        histogram.note(value)
    exact = sorted(values)[max(0, -(-int(q * 1e9) * len(values) // 10**9) - 1)]
    assert abs(histogram.quantile(q) - exact) <= 0.021 * exact


def test_merging_is_the_same_as_noting_all_in_one_place():
    """The demo adds up eight devices."""
    parts, whole = [Telemetry() for _ in range(3)], Telemetry()
    for i in range(300):
        value = random.Random(i).random()
        for telemetry in (parts[i % 3], whole):
            telemetry.time("x", value)
            telemetry.count("n")
    assert merged(parts).histograms["x"].counts == whole.histograms["x"].counts
    assert merged(parts).counters == whole.counters


def test_a_snapshot_comes_back():
    """Health messages carry it."""
    telemetry = Telemetry()
    telemetry.time("x", 0.01)
    telemetry.gauge("g", 2.0)
    telemetry.count("c", 5)
    assert Telemetry.from_snapshot(telemetry.snapshot()) == telemetry


def test_a_rate_is_counted_over_its_window():
    """Packets a second in the live view."""
    rate = Rate(window=5.0)
    assert [round(rate.note(10 * t, float(t)), 3) for t in range(20)][-1] == 10.0


def test_an_empty_histogram_has_no_quantile():
    """'-' in the report, not 0."""
    assert Histogram().quantile(0.5) is None


def test_prometheus_reads_the_figures(unused_tcp_port: int):
    """A scrape sees counters, gauges and summaries under their names."""
    telemetry = Telemetry()
    telemetry.count("packets", 3)
    telemetry.gauge("busy", 0.5)
    telemetry.time("queue", 0.25)
    with prometheus(lambda: telemetry, unused_tcp_port):
        page = urlopen(f"http://127.0.0.1:{unused_tcp_port}/metrics").read().decode()
    assert "megace2_packets_total 3.0" in page
    assert "megace2_busy 0.5" in page
    assert "megace2_queue_seconds_sum 0.25" in page
