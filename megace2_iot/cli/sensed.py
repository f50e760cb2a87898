"""A clip as a device senses it, and what of it can be shown."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from device_agent.compression import LADDER, thin
from device_agent.extraction.rows import Rows
from device_agent.extraction.settings import SenseSettings
from device_agent.extraction.tokens import tokens_of
from device_agent.media.chunks import Chunk, Losses, Picture, Words
from device_agent.media.clips import Clip as Files
from device_agent.media.clips import clip_of
from device_agent.media.reading import Reading
from device_agent.media.text import decoded
from device_agent.sensing.pipeline import Extraction, Sensed
from device_agent.sensing.recorded import Recorded, of_clip, recorded_clips, sense
from device_agent.sensing.specs import Spec
from device_agent.windows import Window, thinned, to_packet_window
from megace2_iot.features import Modality
from megace2_iot.messages import FeaturePacket
from megace2_iot.problems import Problem
from megace2_iot.quality import DEFAULT_FLOORS, INDICATORS, under_floor
from megace2_iot.quantize import Quantized, dequantize

FRAMES = 12  # kept for the picture, evenly over the first window


@dataclass(frozen=True, slots=True)
class Part:
    """One modality of a window."""

    rows: int
    width: int
    quality: Mapping[str, float]
    masked: str  # why an edge would leave it out; empty where it would not


@dataclass(frozen=True, slots=True)
class Shown:
    """One window."""

    start: float  # s
    end: float
    parts: Mapping[Modality, Part]


@dataclass(frozen=True, slots=True)
class Rung:
    """A whole clip's packets, coded as one rung of the ladder of compression."""

    name: str
    size: int  # bytes
    error: float  # the largest, as a part of a channel's range; of averaged rows, against their mean
    averaged: int  # rows of sound and pictures in one


@dataclass(slots=True)
class Clip:
    """Everything about it; `frames` and `rows` are of its first window."""

    name: str
    duration: float  # s
    file_bytes: int
    windows: list[Shown]
    tokens: list[str]
    sizes: list[Rung]
    float_bytes: int
    seconds: dict[str, float]
    lost: dict[str, int]
    frames: list[Picture] = field(default_factory=list)
    rows: Mapping[Modality, Rows] = field(default_factory=dict)

    def described(self) -> str:
        have = ", ".join(dict.fromkeys(m for window in self.windows for m in window.parts)) or "nothing"
        count = len(self.windows)
        return f"{self.duration:.1f} s of {have}; {count} window{'s' if count != 1 else ''}"

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self)
        del fields["frames"], fields["rows"]
        return fields


def sense_clip(file: str, text: str | None, settings: SenseSettings, bound: float) -> Clip:
    """Sense one clip. Raises `Problem` where it cannot be read."""
    recorded, size = _clip(file, text)
    losses, kept = Losses(), _Kept(settings.longest_clip)
    extraction = Extraction(settings)

    def read(reading: Reading, counted: Losses) -> Iterator[Chunk]:
        return kept.watching(recorded.read(reading, counted))

    watched = Recorded(recorded.name, read, recorded.duration, recorded.present)
    began = time.perf_counter()
    sensed = list(sense(watched, extraction, losses))
    took = time.perf_counter() - began
    if not sensed:
        raise Problem(f"{file}: nothing in it becomes a feature: no word, no sound and no picture that lasts")
    seconds = dict(losses.seconds)
    for window in sensed:
        for stage, spent in window.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    seconds["other"] = max(0.0, took - sum(seconds.values()))
    windows = [_shown(window) for window in sensed]
    return Clip(
        name=recorded.name,
        duration=recorded.duration or sensed[-1].end,
        file_bytes=size,
        windows=windows,
        tokens=kept.tokens,
        sizes=[_rung(place, sensed, bound) for place in range(len(LADDER) - 1)],
        float_bytes=sum(f.values.nbytes for window in sensed for f in window.features.values()),
        seconds={stage: spent for stage, spent in seconds.items() if spent >= 5e-5},
        lost={**losses.counts, **({"words_dropped": dropped} if (dropped := extraction.words_dropped) else {})},
        frames=kept.frames,
        rows=sensed[0].rows,
    )


def _clip(file: str, text: str | None) -> tuple[Recorded, int]:
    """What is to be sensed, and its bytes."""
    if file.partition(":")[0] == "synthetic":
        number = file.partition(":")[2] or "0"
        if not number.isdigit():
            raise Problem(f"{file!r}: give synthetic, or synthetic:N for the N-th clip")
        *_, last = recorded_clips(Spec("synthetic", str(int(number) + 1)))
        return last(), 0
    path = Path(file)
    if path.suffix.lower() == ".txt":
        try:
            words = decoded(path.read_bytes(), Losses())
        except OSError as error:
            raise Problem(f"cannot read {file}: {error.strerror}") from None
        files = Files(path.stem, words=text or words)
    else:
        files = clip_of(path)
    if text:
        files = Files(files.name, files.sound, files.pictures, text)
    paths = [p for p in (files.sound, files.pictures) if p is not None]
    return of_clip(files), sum(p.stat().st_size for p in paths) + len((files.words or "").encode())


class _Kept:
    """What of the chunks is shown: words, and some frames of the first window."""

    def __init__(self, longest: float) -> None:
        self.tokens: list[str] = []
        self._longest = longest
        self._frames: list[Picture] = []

    def watching(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if isinstance(chunk, Words):
                self.tokens += tokens_of(chunk.text)[:512]
            elif isinstance(chunk, Picture) and chunk.start <= self._longest:
                self._frames.append(chunk)
            yield chunk

    @property
    def frames(self) -> list[Picture]:
        if len(self._frames) <= FRAMES:
            return self._frames
        return [self._frames[round(at)] for at in np.linspace(0, len(self._frames) - 1, FRAMES)]


def _shown(window: Sensed) -> Shown:
    masked = under_floor(window.quality, DEFAULT_FLOORS)
    parts: dict[Modality, Part] = {}
    for modality, features in window.features.items():
        quality = {
            name.removeprefix(f"{modality}_"): value
            for name, value in window.quality.items()
            if INDICATORS[name].modality == modality
        }
        rows, width = features.values.shape
        parts[modality] = Part(rows, width, quality, masked.get(modality, ""))
    return Shown(window.start, window.end, parts)


def _rung(place: int, sensed: list[Sensed], bound: float) -> Rung:
    """All windows of a clip, each in a packet of its own as a device sends them."""
    rung, size, error = LADDER[place], 0, 0.0
    relative = rung.bound(bound)
    for seq, one in enumerate(sensed):
        window = Window(features=one.features, quality=one.quality)
        coded = to_packet_window(window, seq, stem=None, relative_bound=relative, share_label=False, factor=rung.thin)
        packet = FeaturePacket(device="sense", epoch=1, sent_at=0.0, stage="features", windows=(coded,))
        size += len(packet.encode())
        for modality, features in thinned(window, rung.thin).features.items():
            restored = dequantize(Quantized.from_fields(coded.sequences[modality]))
            factor = 1 if modality == "text" else rung.thin
            error = max(error, _error(window.features[modality].values, restored, factor))
            assert restored.shape == features.values.shape
    return Rung(rung.name, size, error, rung.thin)


def _error(values: np.ndarray[Any, Any], restored: np.ndarray[Any, Any], factor: int) -> float:
    """The largest error of any value, as a part of its channel's range; of averaged rows, against their mean."""
    span = np.ptp(values, axis=0)
    wrong = np.abs(thin(values, factor) - restored).max(axis=0)
    return float((wrong[span > 0] / span[span > 0]).max(initial=0.0))
