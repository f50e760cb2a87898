"""Microphones: the same sound as of files, loss and return; ALSA for real, on devices of its own without hardware."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from written_media import tone

from device_agent.media.alsa import Heard, heard_at, open_alsa, why_absent
from device_agent.media.chunks import Losses, Sound
from device_agent.media.microphone import microphone
from device_agent.media.reading import Reading
from device_agent.media.reconnecting import DeviceLost

RATE = 48_000


class Jack:
    """A microphone's socket: for each opening, what is heard or how it fails."""

    def __init__(self, *plugs: Callable[[], Iterator[Heard]] | DeviceLost) -> None:
        self.plugs = list(plugs)
        self.opened = 0

    @contextmanager
    def __call__(self, device: str) -> Iterator[Iterator[Heard]]:
        plug = self.plugs[min(self.opened, len(self.plugs) - 1)]
        self.opened += 1
        if isinstance(plug, DeviceLost):
            raise plug
        yield plug()


def hearing(began: float, first: float, last: float, *, then: Exception | None = None) -> Callable[[], Iterator[Heard]]:
    """A stereo tone between 0.5 and 1 s of every 2, from `first` to `last` s, late by some jitter."""
    wave = tone(2, RATE, 0.5, 1.0)
    jitter = np.random.default_rng(0)

    def frames() -> Iterator[Heard]:
        for start in np.arange(first, last - 1e-9, 0.02):
            at = round(start % 2 * RATE)
            piece = np.repeat((32767 * wave[at : at + RATE // 50]).astype(np.int16), 2)[None]
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="stereo")
            frame.sample_rate = RATE
            yield frame, began + start + jitter.uniform(0, 0.01)
        if then is not None:
            raise then

    return frames


def read(jack: Jack, until: float, losses: Losses, began: float) -> list[Sound]:
    source = microphone("default", Reading(), losses, began=began, open_microphone=jack, first_wait=0.01)
    stop, sounds = threading.Event(), []
    for chunk in source(stop):
        assert isinstance(chunk, Sound)
        sounds.append(chunk)
        if chunk.end >= until:
            stop.set()
    return sounds


def test_a_microphone_sounds_like_a_file() -> None:
    """Mono, 16 kHz, clean, at its time, whatever the jitter of the driver."""
    sounds = read(Jack(hearing(50.0, 0, 2)), 1.8, Losses(), 50.0)
    assert all(a.end == pytest.approx(b.start) for a, b in itertools.pairwise(sounds))
    samples = np.concatenate([s.samples for s in sounds])
    loud = np.flatnonzero(np.abs(samples) > 0.15) / 16_000 + sounds[0].start
    assert loud[0] == pytest.approx(0.5, abs=0.02)
    assert loud[-1] == pytest.approx(1.0, abs=0.02)


def test_a_microphone_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """In use, then free, then unplugged and plugged in again: one line for each loss, and time goes on."""
    caplog.set_level(logging.INFO)
    busy = DeviceLost("the microphone default is in use by another program: close that")
    gone = DeviceLost("the microphone default was unplugged: plug it in again")
    jack = Jack(busy, busy, hearing(50.0, 1, 2, then=gone), busy, hearing(50.0, 4, 6))
    losses = Losses()
    sounds = read(jack, 5.0, losses, 50.0)
    assert losses.counts["microphone_lost"] == 2
    assert sounds[0].start == pytest.approx(1, abs=0.02)
    assert [round(b.start - a.end) for a, b in itertools.pairwise(sounds) if b.start - a.end > 0.05] == [2]
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in lines] == [
        "the microphone default is in use by another program",
        "the microphone is back",
        "the microphone default was unplugged",
        "the microphone is back",
    ]


def test_alsa_gives_what_a_device_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's ALSA input for real: a device of ALSA's own whose sound is a file of samples."""
    wave = (32767 * 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000)).astype("<i2")
    (tmp_path / "heard.raw").write_bytes(wave.tobytes())
    (tmp_path / "alsa.conf").write_text(
        'pcm.desk { type file; slave.pcm { type null }; file "/dev/null"; format "raw"; '
        f'infile "{tmp_path}/heard.raw" }}\n'
    )
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "alsa.conf"))
    with open_alsa("desk") as frames:
        heard = list(itertools.islice(frames, 4000))
    samples = np.concatenate([frame.to_ndarray()[0] for frame, _ in heard])
    assert heard[0][0].sample_rate == 16_000
    assert np.abs(samples).max() > 16_000
    assert abs(heard[-1][1] - time.monotonic()) < 1


def test_a_device_that_alsa_does_not_know_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With how to see which there are."""
    (tmp_path / "alsa.conf").write_text("pcm.desk { type null }\n")
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "alsa.conf"))
    with pytest.raises(DeviceLost, match="arecord -l"), open_alsa("shelf"):
        pass
    capfd.readouterr()  # ALSA's own lines


@pytest.mark.parametrize(
    ("device", "nodes", "states", "reason"),
    [
        ("default", 0, [], "no microphone"),
        ("hw:1", 1, ["state: RUNNING"], "in use"),
        ("plughw:1", 2, ["closed", "state: RUNNING"], None),
        ("default", 1, ["state: RUNNING"], None),
        ("hw:1", 1, [], None),
        ("pulse", 0, [], None),
    ],
)
def test_the_kernel_tells_absent_from_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, nodes: int, states: list[str], reason: str | None
) -> None:
    """FFmpeg says "input/output error" to both; a container sees the devices, not the list of cards."""
    monkeypatch.delenv("PULSE_SERVER", raising=False)
    for number in range(nodes):
        (tmp_path / f"pcmC{number}D0c").touch()
    for number, state in enumerate(states):
        status = tmp_path / f"asound/card{number}/pcm0c/sub0/status"
        status.parent.mkdir(parents=True)
        status.write_text(state + "\n")
    found = why_absent(device, tmp_path, tmp_path / "asound")
    assert found is None if reason is None else reason in (found or "")


def test_a_wall_clock_that_is_set_does_not_move_sound() -> None:
    """A Raspberry Pi learns the date minutes after its boot, and stamps of ALSA are of the wall clock."""
    assert heard_at(1000.0, 0.02, 1000.5, 77.0) == pytest.approx(76.5)
    assert heard_at(1000.0, 0.02, 1_700_000_000.0, 77.0) == pytest.approx(76.98)
    assert heard_at(None, 0.02, 1000.5, 77.0) == pytest.approx(76.98)
