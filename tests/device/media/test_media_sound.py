"""Sound of any file as clean mono at one rate, at its true times."""

from __future__ import annotations

import itertools
import wave as wav
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from written_media import tone, write_film, write_sound

from device_agent.media.chunks import Losses, Picture, Sound
from device_agent.media.clock import TrackClock
from device_agent.media.files import probe, read_file
from device_agent.media.reading import Reading
from device_agent.media.sound import SoundTrack

KINDS = [
    ("pcm_s16le", "wav", 8_000, "mono", 1),
    ("pcm_u8", "wav", 11_025, "stereo", 2),
    ("pcm_s24le", "wav", 96_000, "5.1", 6),
    ("pcm_f64le", "wav", 48_000, "2.1", 3),
    ("pcm_s32le", "wav", 192_000, "hexadecagonal", 16),
    ("pcm_mulaw", "wav", 8_000, "mono", 1),
    ("flac", "flac", 44_100, "stereo", 2),
    ("libmp3lame", "mp3", 44_100, "stereo", 2),
    ("libopus", "ogg", 48_000, "mono", 1),
    ("aac", "m4a", 44_100, "5.1", 6),
    ("aac", "m4a", 48_000, "7.1", 8),
]


def sounds(path: Path, reading: Reading | None = None, losses: Losses | None = None) -> list[Sound]:
    return [chunk for chunk in read_file(path, reading, losses) if isinstance(chunk, Sound)]


def joined(pieces: list[Sound]) -> np.ndarray:
    return np.concatenate([piece.samples for piece in pieces])


def heard(pieces: list[Sound], level: float = 0.15) -> tuple[float, float]:
    """Seconds from which and up to which it is louder."""
    loud = [
        piece.start + index / piece.rate for piece in pieces for index in np.flatnonzero(np.abs(piece.samples) > level)
    ]
    return min(loud), max(loud)


@pytest.mark.parametrize("denoise", [False, True])
@pytest.mark.parametrize(("codec", "suffix", "rate", "layout", "channels"), KINDS)
def test_a_tone_is_heard_when_it_sounded(
    tmp_path: Path, codec: str, suffix: str, rate: int, layout: str, channels: int, denoise: bool
) -> None:
    """No filter, resampler or codec may shift time, nor a downmix change loudness: words are matched to both."""
    samples = np.repeat(tone(2, rate, 0.5, 1.0)[None], channels, 0)
    path = write_sound(tmp_path / f"tone.{suffix}", samples, rate, codec=codec, layout=layout)
    losses = Losses()
    pieces = sounds(path, Reading(denoise=denoise), losses)
    first, last = heard(pieces)
    assert abs(first - 0.5) < 0.002
    assert abs(last - 1.0) < 0.002
    steady = joined(pieces)[int(0.6 * 16_000) : int(0.9 * 16_000)]
    assert abs(np.abs(steady).max() - 0.5) < 0.05
    assert not any(losses.counts.values())


def test_pieces_follow_one_another(tmp_path: Path) -> None:
    """Their starts are exact to the sample, and nothing of the length is lost to the delay of noise reduction."""
    pieces = sounds(write_sound(tmp_path / "tone.wav", tone(3.21, 44_100, 0.5, 1.0), 44_100))
    assert pieces[0].start == 0
    assert all(abs(a.end - b.start) < 1e-9 for a, b in itertools.pairwise(pieces))
    assert abs(pieces[-1].end - 3.21) < 1e-4
    assert all(p.samples.dtype == np.float32 and len(p.samples) <= 1600 for p in pieces)


def test_noise_reduction_keeps_speech_and_takes_hiss(data_folder: Path, tmp_path: Path) -> None:
    """A quiet microphone's hiss goes down by more than 3 dB, and a clean voice is not eaten."""
    speech = joined(sounds(data_folder / "clips/english.wav", Reading(denoise=False))).astype(float)
    quiet = 0.1 * speech
    hiss = np.sqrt((quiet**2).mean()) * 10 ** (-10 / 20) * np.random.default_rng(0).standard_normal(len(quiet))

    def ratio(samples: np.ndarray, name: str, denoise: bool) -> float:
        path = write_sound(tmp_path / f"{name}.wav", samples, 16_000, codec="pcm_f32le")
        out = joined(sounds(path, Reading(denoise=denoise)))
        spectrum = np.abs(np.fft.rfft(out[: len(quiet)])) ** 2, np.abs(np.fft.rfft(quiet)) ** 2
        voice, above = slice(300, 3000), slice(int(0.43 * len(quiet)), None)  # hundreds of Hz, and above 6.9 kHz
        return float(10 * np.log10(spectrum[0][voice].sum() / spectrum[0][above].sum()))

    assert ratio(quiet + hiss, "noisy", True) > ratio(quiet + hiss, "noisy", False) + 3
    clean = joined(sounds(write_sound(tmp_path / "clean.wav", quiet, 16_000, codec="pcm_f32le")))
    assert (clean**2).sum() > 0.8 * (quiet**2).sum()


def test_an_array_of_microphones_is_one(tmp_path: Path) -> None:
    """No layout has a name for 20 channels; the first of them is heard."""
    wave = (32767 * tone(1, 16_000, 0.5, 0.8)).astype("<i2")
    path = tmp_path / "array.wav"
    with wav.open(str(path), "wb") as file:
        file.setparams((20, 2, 16_000, len(wave), "NONE", ""))
        file.writeframes(np.repeat(wave[:, None], 20, 1).tobytes())
    first, last = heard(sounds(path))
    assert (first, last) == (pytest.approx(0.5, abs=0.002), pytest.approx(0.8, abs=0.002))


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le"])
def test_clipping_is_measured_before_any_filter(tmp_path: Path, codec: str) -> None:
    """A filtered clipped wave no longer touches full scale, yet is useless."""
    wave = np.clip(3 * tone(1, 16_000, 0, 1, level=1.0), -1, 1)
    path = write_sound(tmp_path / "loud.wav", wave, 16_000, codec=codec)
    assert 0.6 < np.mean([piece.clipped for piece in sounds(path)]) < 0.9
    path = write_sound(tmp_path / "soft.wav", 0.9 * wave, 16_000, codec=codec)
    assert max(piece.clipped for piece in sounds(path)) == 0


def test_garbage_samples_do_not_poison_what_follows(tmp_path: Path) -> None:
    """One NaN in a filter with memory would make silence or NaN of the whole rest."""
    wave = tone(2, 16_000, 0.5, 2.0)
    wave[[100, 9000]] = np.nan, 1e30
    losses = Losses()
    out = joined(sounds(write_sound(tmp_path / "nan.wav", wave, 16_000, codec="pcm_f32le"), losses=losses))
    assert np.isfinite(out).all()
    assert np.abs(out[-8000:]).max() > 0.4
    assert losses.counts["audio_garbage"] == 2


def test_sound_that_starts_late_stays_late(tmp_path: Path) -> None:
    """A track's own clock is the file's: pictures and sound meet."""
    pieces = sounds(write_film(tmp_path / "late.mkv", late=0.3))
    assert abs(pieces[0].start - 0.3) < 0.03
    assert abs(heard(pieces)[0] - 0.5) < 0.03


def test_tracks_come_interleaved(tmp_path: Path) -> None:
    """Neither track is held back until the other is through, so a long film needs no memory."""
    kinds = [type(chunk) for chunk in read_file(write_film(tmp_path / "film.mp4", seconds=4))]
    assert Picture in kinds[:8]
    assert Sound in kinds[-8:]
    assert sum(a is not b for a, b in itertools.pairwise(kinds)) > 20


def test_real_clips_give_all_their_sound(data_folder: Path) -> None:
    """MP2 in MPEG, AAC in MP4 and PCM, as people recorded them."""
    for path in sorted((data_folder / "clips").iterdir()):
        losses, found = Losses(), probe(path)
        pieces = sounds(path, losses=losses)
        assert found.has_sound
        assert found.duration is not None
        assert abs(pieces[-1].end - found.duration) < 0.1
        assert 0.01 < np.abs(joined(pieces)).max() <= 1
        assert not any(losses.counts.values())
        assert set(losses.seconds) >= {"demux", "decode_audio", "filter"}


def frames(rate: int = 16_000) -> Iterator:
    wave = tone(10, rate, 0, 10).astype(np.float32)
    for first in range(0, len(wave), rate // 10):
        frame = av.AudioFrame.from_ndarray(wave[None, first : first + rate // 10], format="flt", layout="mono")
        frame.sample_rate = rate
        yield frame


def test_a_gap_stays_a_gap() -> None:
    """Lost packets must not pull what follows forward."""
    losses = Losses()
    track = SoundTrack(Reading(), losses)
    made = [s for k, f in enumerate(frames()) for s in track.push(f, 0.1 * k + (2.0 if k >= 50 else 0))]
    made += track.flush()
    assert losses.counts == {"audio_gaps": 1}
    assert abs(sum(len(s.samples) for s in made) / 16_000 - 10) < 1e-6
    assert max(b.start - a.end for a, b in itertools.pairwise(made)) == pytest.approx(2.0)


def test_a_clock_set_back_does_not_set_the_track_back() -> None:
    """Recordings put together start again at 0: times of rows rise all the same."""
    losses = Losses()
    track = SoundTrack(Reading(), losses, TrackClock(limit=20, ahead=60))
    made = [s for k, f in enumerate(frames()) for s in track.push(f, 0.1 * (k % 50))] + track.flush()
    assert losses.counts == {"audio_doubts": 1}
    assert all(abs(a.end - b.start) < 1e-6 for a, b in itertools.pairwise(made))


def test_a_device_that_runs_fast_is_held_to_the_clock() -> None:
    """A sound card 2 % fast would be 20 minutes ahead of the camera after a day."""
    losses = Losses()
    track = SoundTrack(Reading(), losses)
    made = [s for k, f in enumerate(frames()) for s in track.push(f, 0.098 * k)] + track.flush()
    assert abs(made[-1].end - 9.8) < 0.15
    assert losses.counts["audio_overlaps"] in {1, 2}


def test_a_stream_may_change_its_format() -> None:
    """Broadcasts go from stereo to mono and back."""
    losses = Losses()
    track = SoundTrack(Reading(), losses)
    made: list[Sound] = []
    for k, (rate, layout, channels) in enumerate([(48_000, "stereo", 2), (44_100, "mono", 1), (8_000, "5.1", 6)]):
        frame = av.AudioFrame.from_ndarray(np.full((1, rate * channels), 0.25, np.float32), format="flt", layout=layout)
        frame.sample_rate = rate
        made += track.push(frame, float(k))
    made += track.flush()
    assert made[-1].end == pytest.approx(3.0, abs=1e-3)
    assert not losses.counts
