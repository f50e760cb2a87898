"""Recorded or generated clips as a device takes them: what it heard and saw beside the features that it makes of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from device_agent.extraction.audio import AudioExtractor
from device_agent.extraction.picture import look
from device_agent.extraction.rows import Rows
from device_agent.extraction.vision import VisionExtractor
from device_agent.media.chunks import Chunk, Losses, Picture, Sound
from device_agent.media.clips import clips_in, read_clip
from device_agent.media.generator import generated_clips, read_generated
from device_agent.media.reading import Reading
from megace2_iot.cli.experiments.exposure.finding import Array

GENERATED = 48  # clips of 8 speakers
SHORTEST = 1.0  # s of sound or pictures that count


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """One clip: `samples` (N,) at 16 kHz, `audio` rows (T, 74), `lumas` (P, 60, 80), `vision` rows (P, 35).

    What it has not is empty. `who` names the person, as far as is known.
    """

    name: str
    who: str
    samples: Array
    audio: Array
    lumas: Array
    vision: Array


def recorded(folder: Path) -> list[Take]:
    """The clips of a folder; everybody in them is taken for somebody else. None where there is no folder."""
    if not folder.is_dir():
        return []
    return [_take(clip.name, clip.name, read_clip(clip, Reading(), Losses())) for clip in clips_in(folder)]


def generated(seed: int, count: int) -> list[Take]:
    """The generator's first clips; its speakers take turns."""
    return [_take(clip.name, clip.group, read_generated(clip)) for clip in generated_clips(count, seed)]


def folder_of_clips() -> Path | None:
    """Where real clips are, as tests find them."""
    data = os.environ.get("MEGACE2_DATA")
    return Path(data) / "clips" if data else None


def with_sound(takes: Sequence[Take]) -> list[Take]:
    return [take for take in takes if len(take.samples) >= SHORTEST * 16_000]


def with_pictures(takes: Sequence[Take]) -> list[Take]:
    return [take for take in takes if len(take.lumas) >= SHORTEST * 15]


def speakers(takes: Sequence[Take]) -> dict[str, list[Take]]:
    """Takes by person."""
    ordered = sorted(takes, key=lambda take: take.who)
    return {who: list(group) for who, group in groupby(ordered, key=lambda take: take.who)}


def _take(name: str, who: str, chunks: Iterable[Chunk]) -> Take:
    hearing, seeing = AudioExtractor(), VisionExtractor()
    samples, lumas, heard, seen = list[Array](), list[Array](), list[Rows](), list[Rows]()
    for chunk in chunks:
        if isinstance(chunk, Sound):
            samples.append(chunk.samples)
            if (rows := hearing.push(chunk)) is not None:
                heard.append(rows)
        elif isinstance(chunk, Picture) and (rows := seeing.push(chunk)) is not None:
            lumas.append(look(chunk.pixels).luma)
            seen.append(rows)
    if (rows := hearing.flush()) is not None:
        heard.append(rows)
    empty = np.zeros(0, np.float32)
    return Take(
        name,
        who,
        np.concatenate(samples) if samples else empty,
        Rows.join(heard).values if heard else np.zeros((0, 74), np.float32),
        np.stack(lumas) if lumas else np.zeros((0, 60, 80), np.float32),
        Rows.join(seen).values if seen else np.zeros((0, 35), np.float32),
    )
