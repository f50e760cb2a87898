"""A folder of clips: text, sound and pictures that share a base name, and scores beside them."""

from __future__ import annotations

import csv
import heapq
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from device_agent.media.chunks import Chunk, Losses, MediaError, Words
from device_agent.media.files import probe, read_file
from device_agent.media.reading import Reading
from device_agent.media.text import decoded, speaking_time

TEXTS = (".txt",)
SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".m4a")  # the first that is there is taken
FILMS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".mpg", ".mpeg")
LABELS = "labels.csv"
MAX_TEXT = 1 << 20  # bytes of a .txt that are read; the rest is counted as `text_cut`


@dataclass(frozen=True, slots=True)
class Clip:
    """`sound` beside a film replaces the film's own; where it is None, the film's own is heard."""

    name: str
    sound: Path | None = None
    pictures: Path | None = None
    words: str | None = None
    score: float | None = None


def clips_in(folder: str | os.PathLike[str], losses: Losses | None = None) -> list[Clip]:
    """Clips of a folder by name; raises MediaError for none at all and for a bad `labels.csv`."""
    folder, losses = Path(folder), losses if losses is not None else Losses()
    if not folder.is_dir():
        raise MediaError(f"there is no folder {folder}: check its name and the folder you are in")
    named: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        # a name that begins with a dot is hidden: macOS leaves such shadows beside each file it copies
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() in TEXTS + SOUNDS + FILMS:
            named.setdefault(path.stem, {}).setdefault(path.suffix.lower(), path)
    if not named:
        raise MediaError(
            f"{folder} holds no clips: put {', '.join(TEXTS + SOUNDS + FILMS)} files with one name each there"
        )
    scores = labels_of(folder / LABELS) if (folder / LABELS).exists() else {}
    return [replace(_clip(name, files, losses), score=scores.get(name)) for name, files in sorted(named.items())]


def clip_of(path: str | os.PathLike[str], losses: Losses | None = None) -> Clip:
    """One media file, and the text beside it."""
    path, losses = Path(path), losses if losses is not None else Losses()
    found = probe(path)
    text = path.with_suffix(".txt")
    return Clip(
        path.stem,
        sound=None if found.has_pictures else path,
        pictures=path if found.has_pictures else None,
        words=_text(text, losses) if text.is_file() else None,
    )


def labels_of(path: Path) -> dict[str, float]:
    """Scores by clip from a table with the columns clip and score; raises MediaError with the number of a bad line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            if not {"clip", "score"} <= set(table.fieldnames or ()):
                raise MediaError(f"{path}, line 1: the columns must be clip,score")
            scores: dict[str, float] = {}
            for row in table:
                name, score = _label(path, table.line_num, row)
                if name in scores:
                    raise MediaError(f"{path}, line {table.line_num}: {name} has a score already: keep one line for it")
                scores[name] = score
            return scores
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MediaError(f"{path} cannot be read ({error}): save it as a UTF-8 table of clip,score") from None


def read_clip(clip: Clip, reading: Reading | None = None, losses: Losses | None = None) -> Iterator[Chunk]:
    """Chunks of all tracks, merged by their starts; words span the tracks, or the time that saying them takes.

    Raises MediaError where a file of it cannot be used.
    """
    reading, losses = reading or Reading(), losses if losses is not None else Losses()
    tracks: list[Iterator[Chunk]] = []
    durations: list[float] = []
    for path, wanted in (
        (clip.sound, replace(reading, pictures=False)),
        (clip.pictures, replace(reading, sound=reading.sound and clip.sound is None)),
    ):
        if path is None:
            continue
        found = probe(path)
        durations.append(found.duration or 0.0)
        if (wanted.sound and found.has_sound) or (wanted.pictures and found.has_pictures):
            tracks.append(iter(read_file(path, wanted, losses)))
    if clip.words:
        tracks.insert(0, iter([Words(clip.words, 0.0, max(durations, default=0.0) or speaking_time(clip.words))]))
    yield from heapq.merge(*tracks, key=lambda chunk: chunk.start)


def _clip(name: str, files: Mapping[str, Path], losses: Losses) -> Clip:
    def first(suffixes: tuple[str, ...]) -> Path | None:
        return next((files[suffix] for suffix in suffixes if suffix in files), None)

    text = first(TEXTS)
    return Clip(name, first(SOUNDS), first(FILMS), _text(text, losses) if text else None)


def _text(path: Path, losses: Losses) -> str | None:
    """What a file says, None where that is nothing."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT + 1)
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}): check who may read it (ls -l)") from None
    if len(data) > MAX_TEXT:
        losses.count("text_cut")
    return decoded(data[:MAX_TEXT], losses) or None


def _label(path: Path, line: int, row: Mapping[str | None, str | None]) -> tuple[str, float]:
    name, text = (row.get("clip") or "").strip(), (row.get("score") or "").strip()
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not name or not math.isfinite(score):
        raise MediaError(f"{path}, line {line}: expected a clip's name and a number, found {name!r} and {text!r}")
    return name, score
