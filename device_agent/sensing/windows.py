"""Sensed windows as the agent's, and what is told of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from device_agent.media.chunks import Losses
from device_agent.sensing.pipeline import Sensed
from device_agent.windows import Window
from megace2_iot.telemetry import Telemetry


@dataclass(slots=True)
class Account:
    """What sensing costs and loses, told to telemetry window by window."""

    telemetry: Telemetry
    losses: Losses = field(default_factory=Losses)
    _read: dict[str, float] = field(default_factory=dict)  # s of reading that was told

    def window(
        self,
        sensed: Sensed,
        captured_at: float,
        *,
        label: float | None = None,
        truth: float | None = None,
        group: str = "",
    ) -> Window:
        """The window, captured at unix s; its quality, losses and times are told."""
        spent = dict(sensed.seconds)
        for stage, seconds in self.losses.seconds.items():
            spent[stage] = seconds - self._read.get(stage, 0.0)
            self._read[stage] = seconds
        for stage, seconds in spent.items():
            self.telemetry.time(f"sense_{stage}", seconds)
        for name, value in sensed.quality.items():
            self.telemetry.gauge(name, value)
        self.telemetry.count("windows_sensed")
        self.tell_losses(self.losses.counts)
        return Window(
            features=sensed.features,
            captured_at=captured_at,
            label=label,
            truth=truth,
            group=group,
            quality=sensed.quality,
            extraction=sum(spent.values()),
        )

    def tell_losses(self, counts: dict[str, int]) -> None:
        for name, count in counts.items():
            self.telemetry.counters[f"sense_{name}"] = count
