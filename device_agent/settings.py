"""Everything that can be set of one device, and the outbox that follows from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from device_agent.learning import TrainingSettings
from device_agent.outbox import Bounds, Outbox
from device_agent.outbox.bounds import WhenFull, default_size
from device_agent.outbox.file import Fsync
from megace2_iot.messages import Policy


class DeviceSettings(BaseModel):
    """One device; see docs/settings.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str = Field("device-1", pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    sources: tuple[str, ...] = ()  # what it senses with; none: it plays [replay]
    print_answers: Literal["text", "json", "none"] = "none"
    edge: str = Field("edge-1", pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    state_dir: Path = Path("state/device")  # the outbox and the pulled blobs
    train: bool = True  # take part in rounds, where torch is installed
    training: TrainingSettings = TrainingSettings()
    share_labels: float = Field(0.0, ge=0, le=1)  # part of the labelled windows whose label may leave the device
    private_windows: int = Field(5000, ge=0)  # newest labelled windows kept for training
    outbox_packets: int = Field(100_000, ge=1)
    outbox_bytes: int | None = Field(None, ge=1 << 20)  # none: 512 MiB, or a tenth of what is free on the disk
    outbox_age: float = Field(7200.0, gt=0)  # s
    when_full: WhenFull = "drop_oldest"
    commit_interval: float = Field(0.1, ge=0, le=60)  # s; what comes within it shares a commit
    fsync: Fsync = "normal"
    replay_rate: float = Field(0.0, ge=0)  # windows a second of what waited; 0: as the edge allows
    noise: float = Field(0.0, ge=0)  # added to what is sent, as a part of each channel's deviation
    answers: Policy | None = None  # insist on who answers; by default the edge decides
    scene: str = Field("", pattern=r"^[a-z0-9_-]{0,32}$")  # what other devices watch too: samples are joined
    health_interval: float = Field(5.0, gt=0)  # s
    metrics_port: int = Field(0, ge=0, le=65535)  # Prometheus figures of all devices of the process; 0: none


def outbox_path(settings: DeviceSettings) -> Path:
    """Where a device's outbox lies."""
    return settings.state_dir / f"{settings.id}.outbox"


def open_outbox(settings: DeviceSettings) -> Outbox:
    """A device's outbox, as its settings bound it. Raises `OutboxError`."""
    path = outbox_path(settings)
    size = default_size(path) if settings.outbox_bytes is None else settings.outbox_bytes
    bounds = Bounds(settings.outbox_packets, size, settings.outbox_age, settings.when_full)
    return Outbox(
        path, bounds, fsync=settings.fsync, commit_interval=settings.commit_interval, monotonic=time.monotonic
    )
