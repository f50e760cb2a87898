"""From sources to windows: what is typed as a source, and what the pipeline makes of chunks."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import aclosing

import numpy as np
import pytest

from device_agent.alignment import Grid
from device_agent.extraction.settings import SenseSettings
from device_agent.media.chunks import Losses, Picture, Sound, Words
from device_agent.sensing import live, recorded
from device_agent.sensing.pipeline import Extraction, Pipeline, live_clocks, read_windows
from device_agent.sensing.specs import read_spec, read_specs
from megace2_iot.problems import Problem
from megace2_iot.telemetry import Telemetry


@pytest.mark.parametrize(
    ("text", "kind", "argument"),
    [
        ("clips:films/today", "clips", "films/today"),
        ("camera", "camera", "/dev/video0"),
        ("camera:/dev/video2", "camera", "/dev/video2"),
        ("mic", "mic", "default"),
        ("mic:plughw:1,0", "mic", "plughw:1,0"),
        ("stdin", "stdin", ""),
        ("topic:asr/room", "topic", "asr/room"),
        ("synthetic", "synthetic", ""),
        ("synthetic:12", "synthetic", "12"),
    ],
)
def test_sources_as_typed(text, kind, argument):
    """A kind, a colon, and an argument that may hold colons; devices have defaults."""
    spec = read_spec(text)
    assert (spec.kind, spec.argument) == (kind, argument)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (("camra:x",), "did you mean 'camera'"),
        (("clips",), "needs a folder of clips"),
        (("stdin:x",), "takes nothing"),
        (("synthetic:many",), "how many clips"),
        (("clips:a", "mic"), "plays whole clips"),
        (("mic", "mic:hw:1"), "given twice"),
    ],
)
def test_a_wrong_source_is_explained(texts, says):
    """Each mistake names what to type instead."""
    with pytest.raises(Problem, match=says):
        read_specs(texts)


def test_a_camera_and_a_microphone_become_windows_on_one_grid():
    """Chunks of two clocks that differ by an hour fall into the same windows, with quality of what is there."""
    extraction = Extraction(SenseSettings(modalities=("audio", "vision"), window=1.0))
    pipeline = Pipeline(
        extraction, Grid(1.0), 0.3, expected=("audio", "vision"), clocks=live_clocks(("audio", "vision"))
    )
    rng, windows = np.random.default_rng(0), []
    for step in range(35):
        at = step / 10  # on the host
        sound = Sound(rng.normal(0, 0.1, 1600).astype(np.float32), 16_000, 3600.0 + at - 0.1)
        windows += pipeline.push(sound, at)
        windows += pipeline.push(Picture(rng.integers(0, 255, (60, 80, 3), np.uint8), at), at)
    windows += pipeline.finish()
    whole = [window for window in windows if window.start >= 1.0 and window.end <= 3.0]
    assert [(window.start, window.end) for window in whole] == [(1.0, 2.0), (2.0, 3.0)]
    for window in whole:
        assert 11 <= len(window.features["audio"].values) <= 13
        assert 9 <= len(window.features["vision"].values) <= 11
        assert window.quality["audio_gap"] < 0.1
        assert 0.2 < window.quality["vision_dropped"] < 0.5  # ten pictures a second where fifteen are wanted
        assert window.seconds["extract_audio"] > 0


def test_an_unplugged_camera_does_not_hold_windows_up():
    """Once it missed a deadline, windows leave with the sound alone and say what is missing."""
    extraction = Extraction(SenseSettings(modalities=("audio", "vision"), window=1.0))
    pipeline = Pipeline(
        extraction, Grid(1.0), 0.2, expected=("audio", "vision"), clocks=live_clocks(("audio", "vision"))
    )
    windows = []
    for step in range(40):
        at = step / 10
        windows += pipeline.push(Sound(np.full(1600, 0.01, np.float32), 16_000, at), at + 0.1)
        if step < 5:
            windows += pipeline.push(Picture(np.zeros((60, 80, 3), np.uint8), at), at)
        windows += pipeline.advance(at + 0.1)
    assert len(windows) >= 3
    assert "vision" in windows[0].features
    assert all("vision" not in window.features for window in windows[1:])
    assert windows[1].quality["vision_gap"] == 1.0
    assert pipeline.figures()["tracks_given_up"] >= 1


async def test_generated_clips_play_as_labelled_windows():
    """Words, sound and pictures of each; one of five keeps its score to itself, as the truth."""
    clips = list(recorded.recorded_clips(read_spec("synthetic:5")))
    telemetry = Telemetry()
    stream = recorded.play(lambda: clips, Extraction(SenseSettings()), telemetry, speed=0.0)
    windows = [window async for window in stream]
    assert len(windows) == 5
    assert [window.label is None for window in windows] == [False] * 4 + [True]
    assert windows[4].truth is not None
    for window in windows:
        assert set(window.features) == {"text", "audio", "vision"}
        assert window.extraction > 0
    assert telemetry.counters["windows_sensed"] == 5


async def test_a_damaged_clip_is_counted_and_the_next_is_played(tmp_path):
    """One bad file among good ones is said and skipped."""
    (tmp_path / "a.txt").write_text("it was good")
    (tmp_path / "b.wav").write_bytes(b"RIFF no sound")
    (tmp_path / "c.txt").write_text("it was bad")
    spec, telemetry = read_spec(f"clips:{tmp_path}"), Telemetry()
    stream = recorded.play(lambda: recorded.recorded_clips(spec), Extraction(SenseSettings()), telemetry, speed=0.0)
    assert len([window async for window in stream]) == 2
    assert telemetry.counters["clips_failed"] == 1


@pytest.mark.parametrize("labels", ["clip,score\na,1.5\n", None])
def test_only_labelled_clips_can_be_learned_from(tmp_path, labels):
    """A device without labels takes no part in rounds: it would decline each of them."""
    (tmp_path / "a.txt").write_text("it was good")
    if labels:
        (tmp_path / "labels.csv").write_text(labels)
    assert recorded.has_labels(read_spec(f"clips:{tmp_path}")) is bool(labels)
    assert recorded.has_labels(read_spec("synthetic"))
    assert not recorded.has_labels(read_spec("camera"))


async def test_a_clip_is_sensed_once_it_is_over():
    """At a speed, windows come as late as they would have been recorded, and are dated by when they ended."""
    clips = list(recorded.recorded_clips(read_spec("synthetic:2")))
    began = time.monotonic()
    stream = recorded.play(lambda: clips, Extraction(SenseSettings()), Telemetry(), speed=20.0)
    windows = [window async for window in stream]
    lasted = sum(clip().duration for clip in clips) + recorded.GAP
    assert time.monotonic() - began >= lasted / 20 - 0.1
    assert windows[1].captured_at - windows[0].captured_at >= (clips[1]().duration + recorded.GAP) / 20 - 0.15


def test_a_track_that_ends_early_and_a_long_text_lose_nothing():
    """A minute of pictures with three seconds of sound and 600 words: every row of each finds its window."""
    extraction = Extraction(SenseSettings(longest_clip=10.0))
    chunks = [Words("word " * 600, 0.0, 60.0)]
    for tick in range(900):
        at = tick / 15
        if at < 3.0:
            chunks.append(Sound(np.full(1067, 0.01, np.float32), 16_000, at))
        chunks.append(Picture(np.full((60, 80, 3), 99, np.uint8), at))
    windows = list(read_windows(extraction, chunks, 60.0, ("text", "audio", "vision")))
    rows = {m: sum(len(w.features[m].values) for w in windows if m in w.features) for m in extraction.dims}
    assert rows == {"text": 512, "audio": 37, "vision": 900}
    assert len(windows) == 6
    assert extraction.words_dropped == 88


async def test_typed_lines_are_windows_of_their_own(tmp_path):
    """Lines of a pipe fall into the window of their arrival, without waiting for anything."""
    reading, writing = os.pipe()
    extraction = Extraction(SenseSettings(modalities=("text",), window=0.5, lateness=0.0))
    losses, began = Losses(), time.monotonic()
    source = live.typed_lines(began, losses, reading)

    async def lines():
        os.write(writing, b"it was good\n")
        await asyncio.sleep(0.6)
        os.write(writing, "c'\xe9tait mauvais \U0001f44e\n".encode())
        os.close(writing)

    typing = asyncio.create_task(lines())
    pipeline = Pipeline(extraction, Grid(0.5), 0.0, expected=(), clocks=live_clocks(("text",)))
    windows = []
    async with aclosing(source):
        async for words, arrived in source:
            assert isinstance(words, Words)
            windows += pipeline.push(words, arrived - began)
    windows += pipeline.finish()
    await typing
    os.close(reading)
    assert [len(window.features["text"].values) for window in windows] == [1, 3]
