"""The edge's devices: profile, configuration, state, dedup window, and what was answered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_gateway.dedup import DedupWindow
from edge_gateway.quota import Bucket
from edge_gateway.scheduling import Load, Needs, SchedulingSettings, Unservable, plan
from megace2_iot.messages import DeviceConfig, DeviceProfile, State
from megace2_iot.telemetry import Rate

MAX_DEVICES = 4096  # registered at once; one more is refused
MOST_TOLD = 32  # devices of whose missing windows the edge's health tells


@dataclass(slots=True)
class DeviceRecord:
    """What an edge knows of one device."""

    id: str
    dedup: DedupWindow
    profile: DeviceProfile | None = None
    config: DeviceConfig | None = None
    refused: str = ""  # why its profile cannot be served, as it was told
    state: str = "offline"
    session: int = -1
    windows: int = 0
    rate: Rate = field(default_factory=Rate)
    bad: Bucket = field(default_factory=Bucket)  # of bad packets that are spoken of

    @property
    def online(self) -> bool:
        """By its own word; by its profile and windows where no word came: a broker with a full queue drops births."""
        unheard = self.session < 0 and self.profile is not None and self.windows > 0
        return self.state == "online" or unheard

    @property
    def scene(self) -> str:
        """What it watches together with other devices; empty where it is alone."""
        return "" if self.profile is None else self.profile.scene


class Devices:
    """The registry of one edge."""

    def __init__(self, settings: SchedulingSettings, clock: str, remembered_answers: int) -> None:
        self._settings, self._clock, self._remembered = settings, clock, remembered_answers
        self._records: dict[str, DeviceRecord] = {}

    def __iter__(self) -> Iterator[DeviceRecord]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def get(self, device: str) -> DeviceRecord | None:
        """The record of a device, made at its first word; None where there is no room for one more."""
        record = self._records.get(device)
        if record is None and (len(self._records) < MAX_DEVICES or self._forget_a_stranger()):
            record = self._records[device] = DeviceRecord(device, DedupWindow(self._remembered))
        return record

    def _forget_a_stranger(self) -> bool:
        """Make room by the record of one that never said what it is: names cost nothing on an open broker."""
        stranger = next((record.id for record in self if record.profile is None and not record.online), None)
        return stranger is not None and self._records.pop(stranger, None) is not None

    def told_rate(self, device: str) -> float:
        """Windows a second that a device was told to keep to; 0 where it was told none."""
        record = self._records.get(device)
        return 0.0 if record is None or record.config is None else record.config.rate

    def note_state(self, device: str, state: State) -> str | None:
        """Take a state; returns it where it changed anything. A will that is older than the newest birth is stale.

        A birth never is: the clock of a device may go back, and a stranger's word of a huge session must not last.
        """
        record = self.get(device)
        if record is None or (state.state != "online" and state.session < record.session):
            return None
        before = record.state, record.online
        record.session, record.state = state.session, state.state
        return state.state if before != (record.state, record.online) else None

    def configure(self, device: str, needs: Needs, load: Load) -> DeviceConfig | Unservable | None:
        """The device's configuration where it changed, why there is none, or None where nothing is to be said."""
        record = self._records.get(device)
        if record is None or record.profile is None:
            return None
        planned = plan(record.profile, needs, load, self._settings, self._clock)
        if isinstance(planned, Unservable):
            if planned.reason == record.refused:
                return None
            record.refused = planned.reason
        elif planned == record.config:
            return None
        else:
            record.config, record.refused = planned, ""
        return planned

    def missing(self) -> dict[str, int]:
        """Windows that are missing, as facts by device: of those that miss most."""
        worst = sorted(self, key=lambda record: -record.dedup.missing)[:MOST_TOLD]
        return {f"missing.{record.id}": record.dedup.missing for record in worst if record.dedup.missing}

    def participants(self) -> list[str]:
        """Online devices that may train."""
        return sorted(r.id for r in self if r.online and r.config is not None and r.config.train)

    def arriving(self) -> float:
        """Windows a second from all devices over the last seconds."""
        now = time.monotonic()
        return sum(record.rate.note(record.windows, now) for record in self)
