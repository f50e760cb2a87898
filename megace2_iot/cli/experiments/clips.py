"""The raw clips that both arms of table 3 get: their files, and what a device by itself makes of them and when."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from device_agent.extraction.settings import SenseSettings
from device_agent.media.chunks import Losses
from device_agent.media.clips import FILMS, SOUNDS, TEXTS, clips_in
from device_agent.media.generator import PICTURE_RATE, RATE, GeneratedClip, generated_clips
from device_agent.sensing.pipeline import Extraction
from device_agent.sensing.recorded import of_clip, sense
from device_agent.windows import Window
from megace2_iot.features import Features, Modality
from megace2_iot.problems import Problem

MEASURED = 3  # times that each clip is extracted; the median counts
BUILT_IN = 6  # clips of the generator


@dataclass(frozen=True, slots=True, eq=False)
class RawClip:
    """One clip's files as they are, by suffix."""

    name: str
    files: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))


@dataclass(frozen=True, slots=True, eq=False)
class Extracted:
    """What one clip's extraction gave, and the s that it took with nothing else running."""

    features: Mapping[Modality, Features]
    quality: Mapping[str, float]
    generation: float

    def window(self, captured_at: float, label: float | None = None) -> Window:
        """As a device's window, captured at unix s."""
        return Window(self.features, captured_at, label, quality=self.quality, extraction=self.generation)


def folder_of(given: Path | None, built_in: Path) -> Path:
    """The clips to use: those given, those of $MEGACE2_DATA, or the built-in ones, which are encoded once.

    x264 gives other bytes each time, so `built_in` is kept.
    """
    if given is not None:
        return given.expanduser()
    data = Path(os.environ.get("MEGACE2_DATA", "")) / "clips"
    if os.environ.get("MEGACE2_DATA") and data.is_dir():
        return data
    built_in.mkdir(parents=True, exist_ok=True)
    for clip in generated_clips(BUILT_IN, 0):
        if not (built_in / f"{clip.name}.txt").exists():  # which is written last
            write(clip, built_in)
    return built_in


def raw_clips(folder: Path, most: int | None = None) -> list[RawClip]:
    """The first clips of a folder by name. Raises `Problem` where there are none."""
    suffixes = TEXTS + SOUNDS + FILMS
    found = []
    for clip in clips_in(folder)[:most]:
        paths = [folder / f"{clip.name}{suffix}" for suffix in suffixes]
        found.append(RawClip(clip.name, {path.suffix: path.read_bytes() for path in paths if path.is_file()}))
    if not all(clip.files for clip in found):
        raise Problem(f"{folder}: a clip's files must end in small letters, as in {', '.join(suffixes)}")
    return found


def digest(clips: Sequence[RawClip]) -> str:
    """sha256 over all files of all clips."""
    seen = hashlib.sha256()
    for clip in clips:
        for suffix, data in sorted(clip.files.items()):
            seen.update(f"{clip.name}{suffix} {len(data)}\n".encode() + data)
    return seen.hexdigest()


def extract(files: Mapping[str, bytes], extraction: Extraction, scratch: Path) -> Extracted:
    """The features of one clip's files, which are written below `scratch` first; of a long clip its first window."""
    for suffix, data in files.items():
        (scratch / f"clip{suffix}").write_bytes(data)
    try:
        began = time.perf_counter()
        first = next(iter(list(sense(of_clip(clips_in(scratch)[0]), extraction, Losses()))), None)
        took = time.perf_counter() - began
    finally:
        for suffix in files:
            (scratch / f"clip{suffix}").unlink()
    if first is None:
        raise Problem("a clip without a single window of features: leave it out of --clips")
    return Extracted(first.features, first.quality, took)


def measured(clips: Sequence[RawClip], scratch: Path, times: int = MEASURED) -> list[Extracted]:
    """Each clip by itself, one after another; the time is the median of several."""
    extraction, found = Extraction(SenseSettings()), []
    scratch.mkdir(parents=True, exist_ok=True)
    extract(clips[0].files, extraction, scratch)  # the first reading loads libraries
    for clip in clips:
        tried = [extract(clip.files, extraction, scratch) for _ in range(times)]
        found.append(
            Extracted(tried[0].features, tried[0].quality, statistics.median(each.generation for each in tried))
        )
    return found


def write(clip: GeneratedClip, folder: Path) -> None:
    """A generated clip as an .mp4 with its sound in it and a .txt."""
    height, width = clip.pictures.shape[1:3]
    with av.open(str(folder / f"{clip.name}.mp4"), "w") as container:
        film = container.add_stream("libx264", rate=Fraction(round(PICTURE_RATE)))
        film.width, film.height, film.pix_fmt = width - width % 2, height - height % 2, "yuv420p"
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        for pixels in clip.pictures:
            container.mux(film.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(film.encode())
        frame = av.AudioFrame.from_ndarray(clip.samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    (folder / f"{clip.name}.txt").write_text(clip.words)
