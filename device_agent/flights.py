"""What is remembered of windows whose answers are awaited: the times between sensor and answer, and their truth."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import dataclass

from device_agent.windows import Window
from megace2_iot.messages import Prediction
from megace2_iot.telemetry import Telemetry

MOST = 1024  # flights; the oldest are of windows that were shed meanwhile
RECENT = 200  # answers behind the p99 that paces re-sending
RECENT_TRUTHS = 50  # answers behind the live accuracy


@dataclass(slots=True)
class Flight:
    """One unanswered window."""

    window: Window
    sent_at: float  # unix s
    generation: float  # s
    live: bool


class Flights:
    """One device's windows on their way. `same_clock`: times of the edge can be subtracted from ours."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._flights: OrderedDict[int, Flight] = OrderedDict()
        self._latencies: deque[float] = deque(maxlen=RECENT)
        self._hits: deque[bool] = deque(maxlen=RECENT_TRUTHS)
        self._min_round_trip = float("inf")
        self.same_clock = False

    def began(self, seq: int, flight: Flight) -> None:
        """A window was sent, perhaps once more."""
        self._flights[seq] = flight
        if len(self._flights) > MOST:
            self._flights.popitem(last=False)

    def ended(self, seq: int) -> Flight | None:
        """A window's answer came; None where nothing is remembered of it."""
        return self._flights.pop(seq, None)

    def note(self, flight: Flight, prediction: Prediction) -> None:
        """Take the times of an answer, and whether it was right where that is known."""
        self._note_times(flight, prediction)
        if prediction.score is not None:
            self.note_truth(flight.window, prediction.score)

    def _note_times(self, flight: Flight, prediction: Prediction) -> None:
        now, timings = time.time(), prediction.timings
        if timings is None or not flight.live:
            return
        residence = timings.answered_at - timings.received_at
        round_trip = max(0.0, now - flight.sent_at - residence)
        self._min_round_trip = min(self._min_round_trip, round_trip)
        if self.same_clock:
            up, down = timings.received_at - flight.sent_at, now - timings.answered_at
        else:  # an estimate between machines: the best round trip seen, halved
            up = down = self._min_round_trip / 2
        end_to_end = now - flight.window.captured_at
        self._latencies.append(end_to_end)
        for name, seconds in (
            ("generation", flight.generation),
            ("transmission", up),
            ("queue", timings.queue),
            ("inference", timings.inference),
            ("result", down),
            ("end_to_end", end_to_end),
        ):
            self._telemetry.time(name, max(0.0, seconds))

    def note_truth(self, window: Window, score: float, *, first: bool = False) -> None:
        """Compare with the truth, where it is known; of a `first` answer, that another will follow, apart."""
        if window.truth is None:
            return
        hit = (score >= 0) == (window.truth >= 0)
        if first:
            self._telemetry.count("first_truth_known")
            self._telemetry.count("first_truth_hit", int(hit))
            return
        self._telemetry.count("truth_known")
        self._telemetry.count("truth_hit", int(hit))
        self._hits.append(hit)
        self._telemetry.gauge("live_accuracy", sum(self._hits) / len(self._hits))

    def p99(self) -> float:
        """Seconds within which 99 % of the last answers came; 1 before any."""
        ordered = sorted(self._latencies)
        return ordered[int(0.99 * (len(ordered) - 1))] if ordered else 1.0
