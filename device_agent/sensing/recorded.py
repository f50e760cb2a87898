"""Clips as they would have been recorded: each is sensed once it is over, on its own clock times a speed."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from device_agent.media.chunks import Chunk, Losses, MediaError
from device_agent.media.clips import Clip, clip_of, clips_in, read_clip
from device_agent.media.files import probe
from device_agent.media.generator import generated_clip, read_generated
from device_agent.media.reading import Reading
from device_agent.media.text import speaking_time
from device_agent.sensing.pipeline import Extraction, Sensed, modality_of, read_windows
from device_agent.sensing.specs import Spec
from device_agent.sensing.windows import Account
from device_agent.windows import Window
from megace2_iot.features import Modality
from megace2_iot.telemetry import Telemetry

_log = logging.getLogger("megace2.sensing")
GAP = 1.0  # s between two clips
TRUTHS = 5  # of the generated clips each fifth is only compared with, as a test row is


@dataclass(frozen=True, slots=True)
class Recorded:
    """One clip: its chunks are read when they are asked for."""

    name: str
    read: Callable[[Reading, Losses], Iterator[Chunk]]
    duration: float | None  # s
    present: tuple[Modality, ...]
    label: float | None = None
    truth: float | None = None
    group: str = ""


Opener = Callable[[], Recorded]  # raises MediaError where the clip cannot be read


def recorded_clips(spec: Spec, seed: int = 0) -> Iterable[Opener]:
    """The clips of a source, to be opened when their turn comes. Raises `MediaError` where there are none."""
    if spec.kind == "synthetic":
        numbers = range(int(spec.argument)) if spec.argument else itertools.count()
        return (partial(_generated, seed, number) for number in numbers)
    clips = [clip_of(spec.argument)] if spec.kind == "file" else clips_in(Path(spec.argument))
    return [partial(of_clip, clip) for clip in clips]


def has_labels(spec: Spec) -> bool:
    """Whether a source's clips may be learned from."""
    if spec.kind == "clips":
        return any(clip.score is not None for clip in clips_in(Path(spec.argument)))
    return spec.kind == "synthetic"


def of_clip(clip: Clip) -> Recorded:
    """A clip of files. Raises `MediaError` where they cannot be read."""
    found = [probe(path) for path in (clip.sound, clip.pictures) if path is not None]
    durations = [probed.duration for probed in found]
    known = [duration for duration in durations if duration is not None]
    duration = max(known) if len(known) == len(found) and known else None
    if not found and clip.words:
        duration = speaking_time(clip.words)
    present: list[Modality] = ["text"] if clip.words else []
    present += ["audio"] if any(probed.has_sound for probed in found) else []
    present += ["vision"] if any(probed.has_pictures for probed in found) else []
    return Recorded(
        clip.name,
        lambda reading, losses: read_clip(clip, reading, losses),
        duration,
        tuple(present),
        label=clip.score,
        group=clip.name,
    )


def _generated(seed: int, number: int) -> Recorded:
    made = generated_clip(seed, number)
    is_truth = number % TRUTHS == TRUTHS - 1
    return Recorded(
        made.name,
        lambda reading, losses: read_generated(made, reading, losses),
        made.duration,
        ("text", "audio", "vision"),
        label=None if is_truth else made.score,
        truth=made.score if is_truth else None,
        group=made.name,
    )


def sense(clip: Recorded, extraction: Extraction, losses: Losses) -> Iterator[Sensed]:
    """The windows of a clip; blocking."""
    chunks = clip.read(extraction.reading(), losses)
    wanted = (chunk for chunk in chunks if modality_of(chunk) in extraction.extractors)
    return read_windows(extraction, wanted, clip.duration, clip.present)


async def play(
    clips: Callable[[], Iterable[Opener]],
    extraction: Extraction,
    telemetry: Telemetry,
    *,
    speed: float,
    repeat: bool = False,
) -> AsyncIterator[Window]:
    """Each clip's windows once they are over; `speed` 0 plays as fast as they can be sensed.

    A clip that cannot be read is counted (`clips_failed`) and said, and the next is played.
    """
    account, due = Account(telemetry), time.monotonic()
    with ThreadPoolExecutor(1, "sensing") as thread:
        while True:
            played = 0
            for opener in await asyncio.get_running_loop().run_in_executor(thread, clips):
                try:
                    async for window in _play_one(opener, extraction, account, thread, due, speed):
                        due = time.monotonic()
                        played += 1
                        yield window
                except MediaError as error:
                    _log.warning("%s", error)
                    telemetry.count("clips_failed")
                due += GAP / speed if speed > 0 else 0.0
            account.tell_losses({**account.losses.counts, "words_dropped": extraction.words_dropped})
            if not repeat or not played:
                return


async def _play_one(
    opener: Opener,
    extraction: Extraction,
    account: Account,
    thread: ThreadPoolExecutor,
    begin: float,
    speed: float,
) -> AsyncIterator[Window]:
    """The windows of one clip that begins at `begin` monotonic s, each when it is over; raises MediaError."""
    loop = asyncio.get_running_loop()
    clip = await loop.run_in_executor(thread, opener)
    windows = sense(clip, extraction, account.losses)
    if speed > 0 and clip.duration is not None:  # no row is made of what was not recorded yet
        await _until(begin + min(clip.duration, extraction.settings.longest_clip) / speed)
    while (sensed := await loop.run_in_executor(thread, next, windows, None)) is not None:
        over = begin + sensed.end / speed if speed > 0 else time.monotonic()
        await _until(over)
        captured_at = time.time() - max(0.0, time.monotonic() - over)
        yield account.window(sensed, captured_at, label=clip.label, truth=clip.truth, group=clip.group)


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.monotonic()))
