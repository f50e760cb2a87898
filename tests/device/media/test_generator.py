"""Clips of the built-in generator: the same each time, and meaningless to who only reads, only hears or only looks."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from device_agent.media.chunks import Losses, Picture, Sound, Words
from device_agent.media.generator import (
    BLAME,
    PICTURE_RATE,
    PRAISE,
    RATE,
    GeneratedClip,
    generated_clip,
    generated_clips,
    read_generated,
)
from device_agent.media.reading import Reading


@pytest.fixture(scope="module")
def clips() -> list[GeneratedClip]:
    return list(generated_clips(200, seed=1))


def meaning(clip: GeneratedClip) -> int:
    """What the words say: praise, blame, or neither."""
    said = set(clip.words.split())
    return int(bool(said & set(PRAISE))) - int(bool(said & set(BLAME)))


def brightness(clip: GeneratedClip) -> float:
    """Octaves between the loudness above 1500 Hz and below."""
    power = np.abs(np.fft.rfft(clip.samples)) ** 2
    above = np.fft.rfftfreq(len(clip.samples), 1 / RATE) > 1500
    return float(np.log2(power[above].sum() / power[~above].sum()))


def nodding(clip: GeneratedClip) -> float:
    """How far the dark parts of the face go up and down, less how far they go aside."""
    grey = clip.pictures.astype(np.float32).mean(axis=3)
    dark = grey < 0.7 * grey.mean()
    weight = dark.sum((1, 2)) + 1
    down = (dark * np.arange(grey.shape[1])[None, :, None]).sum((1, 2)) / weight
    across = (dark * np.arange(grey.shape[2])[None, None, :]).sum((1, 2)) / weight
    return float(down.std() - across.std())


def accuracy(guesses: np.ndarray, clips: list[GeneratedClip]) -> float:
    """The better of a guess and its contrary."""
    right = float(np.mean((guesses > 0) == np.array([clip.score > 0 for clip in clips])))
    return max(right, 1 - right)


def voices(clips: list[GeneratedClip]) -> np.ndarray:
    """Brightness against the speaker's usual."""
    heard = {clip.name: brightness(clip) for clip in clips}
    usual = {g: np.median([heard[c.name] for c in clips if c.group == g]) for g in {c.group for c in clips}}
    return np.array([heard[clip.name] - usual[clip.group] for clip in clips]) + 0.3


def test_the_same_numbers_give_the_same_clip() -> None:
    """Bit for bit, in any order, so that a result can be made again."""
    a, b, other = generated_clip(3, 7), generated_clip(3, 7), generated_clip(4, 7)
    assert (a.words, a.score) == (b.words, b.score)
    assert np.array_equal(a.samples, b.samples)
    assert np.array_equal(a.pictures, b.pictures)
    assert not np.array_equal(a.samples[:1000], other.samples[:1000])


def test_a_clip_is_short_and_quick() -> None:
    """2-5 s of sound and pictures in at most 50 ms, so that a demo starts at once."""
    begun = time.process_time()
    made = list(generated_clips(20, seed=2))
    assert (time.process_time() - begun) / 20 < 0.05
    for clip in made:
        assert 2 <= clip.duration <= 5
        assert abs(len(clip.pictures) / PICTURE_RATE - clip.duration) < 0.1
        assert 0 < abs(clip.score) <= 3
        assert 0.1 < np.abs(clip.samples).max() <= 1
        assert clip.pictures.dtype == np.uint8
        assert clip.samples.dtype == np.float32


def test_no_modality_alone_tells_the_sign(clips: list[GeneratedClip]) -> None:
    """Otherwise it would prove nothing about fusing them."""
    assert 0.4 < np.mean([clip.score > 0 for clip in clips]) < 0.65
    for said in (-1, 0, 1):
        signs = Counter(clip.score > 0 for clip in clips if meaning(clip) == said)
        assert max(signs.values()) / signs.total() < 0.75
    assert accuracy(np.array([meaning(clip) + 0.5 for clip in clips]), clips) < 0.68
    assert accuracy(voices(clips), clips) < 0.68
    assert accuracy(np.array([nodding(clip) for clip in clips]), clips) < 0.68


def test_words_with_a_voice_or_a_face_tell_it(clips: list[GeneratedClip]) -> None:
    """Praise in a falling voice is blame: two modalities suffice, by measures as simple as these."""
    said = np.array([meaning(clip) or 1 for clip in clips])
    assert accuracy(said * voices(clips), clips) > 0.85
    assert accuracy(said * np.array([nodding(clip) for clip in clips]), clips) > 0.75


def test_speakers_differ(clips: list[GeneratedClip]) -> None:
    """In pitch and light, and each speaks as often: a split by speaker is a real one."""
    groups = Counter(clip.group for clip in clips)
    assert len(groups) == 8
    assert max(groups.values()) - min(groups.values()) <= 1
    light = {g: np.mean([c.pictures.mean() for c in clips if c.group == g]) for g in groups}
    assert max(light.values()) - min(light.values()) > 20


def test_a_clip_is_read_like_a_file() -> None:
    """The same chunks, filters, rates and sizes."""
    clip, losses = generated_clip(0, 0), Losses()
    chunks = list(read_generated(clip, Reading(width=32), losses))
    assert chunks[0] == Words(clip.words, 0.0, clip.duration)
    sounds = [c for c in chunks if isinstance(c, Sound)]
    pictures = [c for c in chunks if isinstance(c, Picture)]
    assert sum(len(s.samples) for s in sounds) == len(clip.samples)
    assert len(pictures) == len(clip.pictures)
    assert pictures[0].pixels.shape == (24, 32, 3)
    assert not losses.counts
    assert [c.start for c in chunks] == sorted(c.start for c in chunks)


def test_tracks_can_be_left_out() -> None:
    """A device without a camera trains on the rest."""
    kinds = {type(c) for c in read_generated(generated_clip(0, 0), Reading(pictures=False))}
    assert kinds == {Words, Sound}
