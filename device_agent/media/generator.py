"""Built-in raw clips, seeded: sentences, voices and faces whose meaning no one of them tells alone.

A sentence praises, blames or does neither. Its manner is in earnest or ironic, and irony turns praise into blame and
blame into praise; a sentence that does neither is praise in earnest and blame in irony. The manner is heard in the
voice (rising and bright, or falling and dark) and seen in the face (nodding and smiling, or not), each now and then
mistakenly. So words alone, a voice alone and a face alone find the sign of the score in about 60 of 100 clips, words
with a voice or a face in more than 90, and all three in the most.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

from device_agent.media.chunks import Chunk, Losses, Picture, Sound, Words
from device_agent.media.face import Look, draw
from device_agent.media.pictures import PictureTrack
from device_agent.media.reading import Reading
from device_agent.media.sound import SoundTrack
from device_agent.media.voice import Delivery, speak

RATE = 16_000  # Hz
PICTURE_RATE = 15.0  # Hz
SPEAKERS = 8
EARNEST = 0.62  # part of the clips; the rest is ironic
NEUTRAL = 0.2  # part of the sentences
CERTAIN = 0.5  # spread of what a voice or face shows about the truth, which is 1 or -1: 2 % show the contrary

OPENERS = ("well", "so", "i think", "you know", "as i said", "to be honest", "for my part")
THINGS = ("film", "song", "meal", "talk", "story", "journey", "room", "game", "ending", "actor")
DEGREES = {"a bit": 0.7, "rather": 1.2, "really": 1.9, "extremely": 2.6}
PRAISE = ("great", "lovely", "funny", "brilliant", "charming", "wonderful", "clever", "fresh")
BLAME = ("dull", "awful", "boring", "ugly", "clumsy", "terrible", "stale", "annoying")
NEITHER = ("long", "quiet", "usual", "local", "recent", "plain", "large", "early")
CLOSERS = ("", "today", "this time", "in the end", "as always", "from start to finish")


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedClip:
    """`samples` (N,) at `RATE` Hz and `pictures` (T, H, W, 3) RGB at `PICTURE_RATE` Hz, both from 0 s on."""

    name: str
    group: str  # the speaker
    words: str
    samples: npt.NDArray[np.float32]
    pictures: npt.NDArray[np.uint8]
    score: float  # -3..3, never 0

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / RATE


def generated_clip(seed: int, index: int, speakers: int = SPEAKERS) -> GeneratedClip:
    """The same for the same numbers; speakers take turns, each with a pitch, a voice and a light of its own."""
    speaker = index % speakers
    own, random = np.random.default_rng([seed, 1, speaker]), np.random.default_rng([seed, 2, index])
    pitch, tract, brightness = own.uniform(95, 240), own.uniform(0.88, 1.08), own.uniform(0.1, 1.0)
    words, meaning, degree = _sentence(random)
    manner = 1 if random.random() < EARNEST else -1
    loudness = random.uniform(0, 1)
    seconds = float(np.clip(len(words.split()) / random.uniform(2.2, 2.8), 2.0, 5.0))
    syllables = round(3.6 * seconds)
    heard, seen = manner * random.normal(1, CERTAIN), manner * random.normal(1, CERTAIN)
    score = (meaning or 1) * manner * min(3.0, degree * (0.85 + 0.3 * loudness))
    times = np.arange(int(seconds * PICTURE_RATE)) / PICTURE_RATE
    return GeneratedClip(
        name=f"speaker{speaker}-{index:05d}",
        group=f"speaker{speaker}",
        words=words,
        samples=speak(Delivery(pitch, tract, float(np.clip(heard, -2, 2)), loudness, syllables), seconds, RATE, random),
        pictures=draw(Look(brightness, float(np.clip(seen, -2, 2)), syllables), times, seconds, random),
        score=round(score, 2),
    )


def generated_clips(count: int, seed: int, speakers: int = SPEAKERS) -> Iterator[GeneratedClip]:
    """Clips 0 to `count` - 1 of a seed."""
    return (generated_clip(seed, index, speakers) for index in range(count))


def read_generated(
    clip: GeneratedClip, reading: Reading | None = None, losses: Losses | None = None
) -> Iterator[Chunk]:
    """The clip as chunks, through the same filters, ticks and sizes as a file's."""
    reading, losses = reading or Reading(), losses if losses is not None else Losses()
    words = iter([Words(clip.words, 0.0, clip.duration)])
    sound = _sound(clip, reading, losses) if reading.sound else iter(())
    pictures = _pictures(clip, reading, losses) if reading.pictures else iter(())
    tracks: list[Iterator[Chunk]] = [words, sound, pictures]
    return heapq.merge(*tracks, key=lambda chunk: chunk.start)


def _sentence(random: np.random.Generator) -> tuple[str, int, float]:
    """A sentence, whether it praises (1), blames (-1) or neither (0), and how much."""
    meaning = 0 if random.random() < NEUTRAL else int(random.choice([-1, 1]))
    quality = random.choice({1: PRAISE, -1: BLAME, 0: NEITHER}[meaning])
    degree = str(random.choice(list(DEGREES)))
    parts = (random.choice(OPENERS), "the", random.choice(THINGS), "was", degree, quality, random.choice(CLOSERS))
    return " ".join(str(part) for part in parts if part), meaning, DEGREES[degree]


def _sound(clip: GeneratedClip, reading: Reading, losses: Losses) -> Iterator[Sound]:
    track = SoundTrack(reading, losses)
    for first in range(0, len(clip.samples), RATE // 10):
        frame = av.AudioFrame.from_ndarray(clip.samples[None, first : first + RATE // 10], format="flt", layout="mono")
        frame.sample_rate = RATE
        yield from track.push(frame, first / RATE)
    yield from track.flush()


def _pictures(clip: GeneratedClip, reading: Reading, losses: Losses) -> Iterator[Picture]:
    track = PictureTrack(reading, losses, declared=PICTURE_RATE)
    for k, pixels in enumerate(clip.pictures):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = k, Fraction(1, round(PICTURE_RATE))
        yield from track.push(frame, k / PICTURE_RATE)
    yield from track.flush()
