"""The devices of one process: one for `megace2 device`, many for `megace2 replay`; each has its own connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from device_agent.agent import Device, torch_is_installed
from device_agent.learning import Learner
from device_agent.settings import DeviceSettings
from device_agent.sources import duration, replay
from megace2_iot.blobs import BlobStore
from megace2_iot.bus import BrokerSettings
from megace2_iot.datasets import Sample
from megace2_iot.datasets.partition import by_edge
from megace2_iot.datasets.scaling import on_scale_of
from megace2_iot.datasets.splits import How
from megace2_iot.features import Modality
from megace2_iot.problems import Problem
from megace2_iot.recording import load_or_read
from megace2_iot.service import tell_ready
from megace2_iot.telemetry import merged, prometheus
from megace2_iot.topics import Topics

_log = logging.getLogger("megace2.replay")


class ReplaySettings(BaseModel):
    """What a process of replayed devices plays, and as whom."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str = "synthetic"  # a data set's name or file, or a recording
    devices: int = Field(1, ge=1, le=1000)  # `megace2 replay` begins with 4
    speed: float = Field(1.0, ge=0)  # times the data's own clock; 0 as fast as possible
    split: How = "official"
    vectors: Path | None = None  # a file of word vectors, where the source has words
    scale_of: Path | None = None  # a checkpoint: features go on the scale that its training data had
    seed: int = Field(0, ge=0)  # of the built-in corpus and of the split: the same for all devices of a site
    edges: int = Field(1, ge=1)  # the data are dealt to so many edges ...
    index: int = Field(0, ge=0)  # ... and this process plays the share of this one, from 0
    prefix: str = Field("", max_length=24)  # of the device ids; empty: the edge's id
    blind: tuple[int, ...] = ()  # which devices, from 0, have no camera
    only: tuple[Literal["train", "test"], ...] = ("train", "test")
    repeat: bool = False
    stay: bool = False  # remain online and in rounds when the stream is over


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """What the devices of this process play: of the data set, no more is kept."""

    name: str
    dims: Mapping[Modality, int]
    notes: tuple[str, ...]
    dealt: list[tuple[Sample, ...]]  # by device


def shares(settings: ReplaySettings) -> Shares:
    """Read the source and deal it. Raises `Problem` saying what to do."""
    try:
        sites = max(2, settings.edges)
        dataset = load_or_read(settings.source, settings.seed, sites, split=settings.split, vectors=settings.vectors)
        if settings.scale_of is not None:
            dataset = on_scale_of(dataset, settings.scale_of)
        if settings.index >= settings.edges:
            raise ValueError(f"share {settings.index} of {settings.edges}: shares count from 0")
        dealt = by_edge(dataset.samples, settings.edges, settings.devices)[settings.index]
    except (OSError, ValueError) as error:
        raise Problem(f"cannot replay {settings.source}: {error}") from None
    kept = [tuple(s for s in share if s.split in settings.only or s.split == "valid") for share in dealt]
    return Shares(dataset.name, dict(dataset.dims), dataset.notes, kept)


def device_ids(settings: ReplaySettings, device: DeviceSettings) -> list[str]:
    """One device keeps its own id, several are numbered."""
    if settings.devices == 1 and not settings.prefix:
        return [device.id]
    return [f"{settings.prefix or device.edge}-{number:02d}" for number in range(1, settings.devices + 1)]


async def run_fleet(
    settings: ReplaySettings, played: Shares, device: DeviceSettings, topics: Topics, broker: BrokerSettings
) -> None:
    """Play until every device has its answers, or for ever with `stay`. Raises `DeviceRefused`."""
    for note in played.notes:
        _log.info("%s: %s", played.name, note)
    try:
        blobs = BlobStore(device.state_dir / "blobs", device_ids(settings, device)[0])
    except OSError as error:
        raise Problem(f"{device.state_dir} cannot be used: {error.strerror}; choose another state_dir") from None
    can_train = device.train and torch_is_installed() and any(_labelled(share) for share in played.dealt)
    waiting = settings.devices

    def one_ready() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            tell_ready()

    members: list[Device] = []
    async with contextlib.AsyncExitStack() as stack:
        figures = prometheus(lambda: merged(member.telemetry for member in members), device.metrics_port)
        stack.enter_context(figures)
        learner = await stack.enter_async_context(Learner(device.training)) if can_train else None
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(learner.watch(), name="thermal") if learner is not None else None
            playing = []
            for number, (name, share) in enumerate(zip(device_ids(settings, device), played.dealt, strict=True)):
                missing: tuple[Modality, ...] = ("vision",) if number in settings.blind else ()
                member = Device(
                    device.model_copy(update={"id": name}),
                    topics,
                    broker,
                    {m: dim for m, dim in played.dims.items() if m not in missing},
                    blobs,
                    learner,
                    rate=_rate(share, settings.speed),
                    embedded_by=share[0].stem if share else None,
                )
                members.append(member)
                stream = replay(_rotated(share, number), settings.speed, without=missing, repeat=settings.repeat)
                running = member.run(stream, stay=settings.stay, ready=one_ready)
                playing.append(tasks.create_task(running, name=name))
            await asyncio.wait(playing)
            if watching is not None:
                watching.cancel()


def _rotated(share: Sequence[Sample], number: int) -> list[Sample]:
    """Whole groups in turn, beginning with another one for each device: not all play their test rows last."""
    groups = list(dict.fromkeys(sample.group for sample in share))
    first = number % len(groups) if groups else 0
    order = {group: place for place, group in enumerate(groups[first:] + groups[:first])}
    return sorted(share, key=lambda sample: order[sample.group])  # stable: time order within a group


def _labelled(share: Sequence[Sample]) -> bool:
    return any(sample.split == "train" and sample.score is not None for sample in share)


def _rate(share: Sequence[Sample], speed: float) -> float:
    """Windows a second on average."""
    seconds = duration(share) / speed if speed else 0.0
    return min(10_000.0, len(share) / seconds) if seconds else 10_000.0
