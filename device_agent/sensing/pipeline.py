"""Chunks in, windows out: extraction, one clock, windows, quality; blocking, for a thread of its own.

A track is what gives one modality. Times of windows are s on the reference clock: monotonic for live tracks, a clip's
own for a clip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from device_agent.alignment import Aligned, Aligner, Cut, Grid, Pauses, whole
from device_agent.clocks import ClockMap, FileClock, HostClock
from device_agent.extraction.extractors import make_extractors
from device_agent.extraction.onnx import OnnxExtractor
from device_agent.extraction.quality import indicators
from device_agent.extraction.rows import Extractor, Rows
from device_agent.extraction.settings import SenseSettings
from device_agent.extraction.text import TextExtractor
from device_agent.media.chunks import Chunk, Picture, Sound
from device_agent.media.reading import Reading
from megace2_iot.features import Features, Modality

PIECE = 1.0  # s of sound that a clip's rows are made of at a time
BEHIND = 5.0  # s that one track of a file may be behind another: one that is further behind has ended


@dataclass(frozen=True, slots=True, eq=False)
class Sensed:
    """One window of features, and how it came to be."""

    start: float  # s
    end: float
    features: Mapping[Modality, Features]
    quality: Mapping[str, float]
    seconds: Mapping[str, float]  # spent since the window before, by stage: `extract_text`, `extract_audio`, ...
    rows: Mapping[Modality, Rows]


class Extraction:
    """The extractors of one device, which go from clip to clip."""

    def __init__(self, settings: SenseSettings) -> None:
        """Raises `Problem` where a file of the settings cannot be used."""
        self.settings = settings
        self.extractors: dict[Modality, Extractor] = make_extractors(settings)
        self.dims: dict[Modality, int] = {m: extractor.dim for m, extractor in self.extractors.items()}

    def reading(self) -> Reading:
        """What these extractors want of raw media."""
        settings, wanted = self.settings, Reading(denoise=self.settings.denoise)
        vision = self.extractors.get("vision")
        size = vision.size if isinstance(vision, OnnxExtractor) else (wanted.width, None)
        return Reading(
            sound="audio" in self.extractors,
            denoise=settings.denoise,
            pictures=vision is not None,
            picture_rate=settings.picture_rate,
            width=size[0],
            height=size[1],
        )

    @property
    def words_dropped(self) -> int:
        """Words beyond what one chunk may hold, since the start."""
        text = self.extractors.get("text")
        return text.dropped if isinstance(text, TextExtractor) else 0

    def rates(self) -> dict[Modality, float]:
        """Nominal rows a second, of modalities that have a rate."""
        return {m: 1 / extractor.step for m, extractor in self.extractors.items() if extractor.step}


class Pipeline:
    """The tracks of one stream. Every call returns the windows that it completes."""

    def __init__(
        self,
        extraction: Extraction,
        cut: Cut,
        lateness: float,
        *,
        expected: Iterable[Modality],
        clocks: Mapping[Modality, HostClock],
    ) -> None:
        """`expected` are the modalities that a window waits for; those of `clocks` may come."""
        self._extractors = {m: extraction.extractors[m] for m in clocks if m in extraction.extractors}
        self._rates, self._clocks, self._extraction = extraction.rates(), clocks, extraction
        self._aligner = Aligner((m for m in expected if m in self._extractors), cut, lateness)
        self._seconds: dict[str, float] = {}

    @property
    def next_deadline(self) -> float | None:
        """When `advance` has a window though nothing more comes, s on the reference clock."""
        return self._aligner.next_deadline()

    def figures(self) -> dict[str, int]:
        """What was lost on the way, by name, since the start."""
        aligner = self._aligner
        late = {f"rows_late_{m}": count for m, count in aligner.late.items()}
        overflow = {f"rows_overflow_{m}": count for m, count in aligner.overflow.items()}
        words = {"words_dropped": self._extraction.words_dropped}
        return {**late, **overflow, **words, "pauses": aligner.pauses, "tracks_given_up": aligner.given_up}

    def push(self, chunk: Chunk, arrived: float | None = None) -> list[Sensed]:
        """Take a chunk, that arrived at s on the reference clock; a clip's, read at any pace, comes when it begins."""
        modality = modality_of(chunk)
        extractor = self._extractors.get(modality)
        if extractor is None:
            return []
        clock, now = self._clocks[modality], chunk.start if arrived is None else arrived
        end = chunk.start if isinstance(chunk, Picture) else chunk.end
        windows: list[Aligned] = []
        if clock.restarts(end):
            windows += self._give(modality, self._timed(modality, extractor.flush), now)
        clock.note(end, now)
        windows += self._give(modality, self._timed(modality, lambda: extractor.push(chunk)), now)
        return self._sensed(windows)

    def advance(self, now: float) -> list[Sensed]:
        """Windows that are not waited for any longer at `now`."""
        return self._sensed(self._aligner.advance(now))

    def finish(self) -> list[Sensed]:
        """The end of all tracks: what is held leaves, and the extractors are as new."""
        windows: list[Aligned] = []
        for modality, extractor in self._extractors.items():
            windows += self._give(modality, self._timed(modality, extractor.flush), -np.inf)
        return self._sensed(windows + self._aligner.flush())

    def _give(self, modality: Modality, rows: Rows | None, now: float) -> list[Aligned]:
        if rows is None or not len(rows):
            return self._aligner.advance(now)
        moved = Rows(rows.values, self._clocks[modality].to_host(rows.times), rows.step, rows.observed)
        return self._aligner.push(modality, moved, now)

    def _timed(self, modality: Modality, make: Callable[[], Rows | None]) -> Rows | None:
        began = time.perf_counter()
        rows = make()
        stage = f"extract_{modality}"
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - began
        return rows

    def _sensed(self, windows: list[Aligned]) -> list[Sensed]:
        return [self._window(aligned) for aligned in windows]

    def _window(self, aligned: Aligned) -> Sensed:
        began = time.perf_counter()
        start, end = aligned.start, aligned.end
        absent = dict.fromkeys(aligned.missing)
        quality = indicators({**aligned.rows, **absent}, start, end, self._rates)
        features = {m: _features(rows, start, end) for m, rows in aligned.rows.items()}
        spent, self._seconds = self._seconds, {}
        return Sensed(start, end, features, quality, {**spent, "windows": time.perf_counter() - began}, aligned.rows)


def modality_of(chunk: Chunk) -> Modality:
    if isinstance(chunk, Sound):
        return "audio"
    return "vision" if isinstance(chunk, Picture) else "text"


def _features(rows: Rows, start: float, end: float) -> Features:
    """Rows as a sequence at their own rate, or, as of words, at their mean rate."""
    rate = 1 / rows.step if rows.step else len(rows) / max(end - start, 1e-3)
    return Features(rows.values, rate, max(0.0, float(rows.times[0]) - start))


def live_cut(settings: SenseSettings, origin: float) -> Cut:
    """How live tracks are cut; `origin` is where the grid lies on the reference clock."""
    if settings.cut == "pause":
        return Pauses(min(settings.shortest, settings.window), settings.window, settings.pause)
    return Grid(settings.window, origin)


def read_windows(
    extraction: Extraction, chunks: Iterable[Chunk], duration: float | None, present: Iterable[Modality]
) -> Iterator[Sensed]:
    """The windows of a clip that is read as fast as it can be: one where it is short, several where it is long."""
    cut = whole(extraction.settings.longest_clip, duration)
    clocks: dict[Modality, HostClock] = {m: FileClock() for m in extraction.extractors}
    tracks = set(present) - {"text"}  # words all come at the clip's beginning
    pipeline = Pipeline(extraction, cut, BEHIND, expected=tracks, clocks=clocks)
    for chunk in _longer(chunks):
        yield from pipeline.push(chunk)
    yield from pipeline.finish()


def _longer(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Pieces of sound that follow one another as one of up to `PIECE` s: a row of many costs a quarter."""
    held: list[Sound] = []
    for chunk in chunks:
        if held and not _goes_with(chunk, held):
            yield _joined(held)
            held = []
        if isinstance(chunk, Sound):
            held.append(chunk)
        else:
            yield chunk
    if held:
        yield _joined(held)


def _goes_with(chunk: Chunk, held: list[Sound]) -> bool:
    """Whether a chunk follows what is held, or lets it wait for more: sound that ended is not held for ever."""
    if isinstance(chunk, Sound):
        return abs(chunk.start - held[-1].end) < 1e-3 and chunk.end - held[0].start <= PIECE
    return chunk.start - held[0].start <= 2 * PIECE


def _joined(parts: list[Sound]) -> Sound:
    samples = np.concatenate([part.samples for part in parts])
    clipped = float(np.average([part.clipped for part in parts], weights=[len(part.samples) for part in parts]))
    return Sound(samples, parts[0].rate, parts[0].start, clipped)


def live_clocks(modalities: Iterable[Modality]) -> dict[Modality, HostClock]:
    """Clocks of live tracks; words are timed by the host already."""
    return {m: FileClock() if m == "text" else ClockMap() for m in modalities}
