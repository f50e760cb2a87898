"""What can be made again of the sound, and whether a voice is known again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from device_agent.extraction.pitch import WINDOW, pitch
from device_agent.extraction.spectrum import BANDS, FRAME, HOP, SAMPLE_RATE, hann, mel_energies
from megace2_iot.cli.experiments.exposure import vocoder
from megace2_iot.cli.experiments.exposure.finding import EXACT, THINNED, USUAL, Array, Finding
from megace2_iot.cli.experiments.exposure.intelligibility import intelligibility
from megace2_iot.cli.experiments.exposure.inversion import features_back
from megace2_iot.cli.experiments.exposure.likeness import AGAIN, known_again
from megace2_iot.cli.experiments.exposure.takes import Take, with_sound
from megace2_iot.model.config import preset
from megace2_iot.stem import Stem

TRIED, BACK, STEP = "sound", "sound's columns from Z[0]", vocoder.STEP
MEASURES = ("log spectrum, correlation", "loudness, correlation", "STOI")
PITCH_ERROR, VOICED = "pitch, median error in semitones", "voiced or not, part right"
SLOW_PART = "part of loudness's movement below 6.25 Hz"
SLOW = 6.25  # Hz, half of the 12.5 rows a second
PRESETS = ("nano", "mult", "paper")


def of_features(takes: Sequence[Take], whose: str) -> Iterator[Finding]:
    """Sound, envelope and pitch from the 74 columns; the guess is another clip's."""
    heard = with_sound(takes)
    for coding in THINNED:
        made = [vocoder.speak(coding.of_rows(t.audio), STEP * coding.thin, len(t.samples)) for t in heard]
        pairs = [_likeness(take.samples, own) for take, own in zip(heard, made, strict=True)]
        others = [_likeness(*_cut(take.samples, other)) for take, other in zip(heard, made[1:] + made[:1], strict=True)]
        source = f"features of {whose}"
        for number, measure in enumerate(MEASURES):
            found, guess = (float(np.mean([each[number] for each in some])) for some in (pairs, others))
            yield Finding(TRIED, source, coding.name, measure, found, guess)
        yield from _of_pitch(heard, [coding.of_rows(t.audio) for t in heard], coding.thin, source, coding.name)
    slow = float(np.mean([_slow_part(take.samples) for take in heard]))
    yield Finding(TRIED, f"features of {whose}", EXACT.name, SLOW_PART, slow)


def of_embedded(takes: Sequence[Take], seed: int, whose: str) -> Iterator[Finding]:
    """The 74 columns from Z[0] and the stem, by what rows of other clips are like; the part of their variance."""
    heard = with_sound(takes)
    for name in PRESETS:
        config = preset(name, {"audio": 74})
        stem = Stem.random({"audio": 74}, config.width, seed, kernels={"audio": config.kernels["audio"]})
        for coding in (EXACT, USUAL):
            missed, spread = np.zeros(74), np.zeros(74)
            for number, take in enumerate(heard):
                others = np.concatenate([t.audio for n, t in enumerate(heard) if n != number]).astype(np.float64)
                mean, covariance = others.mean(axis=0), np.cov(others.T) + 1e-4 * np.eye(74)
                z = coding.of_embedded(stem.embed("audio", take.audio))
                found = features_back(stem.weights["audio"], mean, covariance, z)
                missed += np.square(found - take.audio).sum(axis=0)
                spread += np.square(take.audio - mean).sum(axis=0)
            part = 1 - missed / np.maximum(spread, 1e-9)
            source = f"Z[0] of {name} and the stem, {whose}"
            yield Finding(BACK, source, coding.name, "74 columns, part of variance", float(part.mean()), 0.0)
            yield Finding(BACK, source, coding.name, "40 bands, part of variance", float(part[:40].mean()), 0.0)


def of_voices(takes: Sequence[Take], seed: int, whose: str) -> Iterator[Finding]:
    """Who speaks, by mean and deviation of the rows: from features, and from Z[0] by somebody without the stem."""
    heard = with_sound(takes)
    for coding in THINNED:
        found, guess = known_again(heard, [coding.of_rows(take.audio) for take in heard])
        yield Finding(AGAIN, f"features of {whose}", coding.name, "voice", found, guess)
    stem = Stem.random({"audio": 74}, preset("nano", {"audio": 74}).width, seed)
    sent = [USUAL.of_embedded(stem.embed("audio", take.audio)) for take in heard]
    found, guess = known_again(heard, sent)
    yield Finding(AGAIN, f"Z[0] of nano, stem unknown, {whose}", USUAL.name, "voice", found, guess)


def _likeness(original: Array, made: Array) -> tuple[float, float, float]:
    """Correlation of log mel spectra, each band about its mean, and of loudness, at frames of 10 ms; and STOI."""
    spectra = [log_mel(samples) for samples in (original, made)]
    levels = [_loudness(samples) for samples in (original, made)]
    centred = [spectrum - spectrum.mean(axis=0) for spectrum in spectra]
    return _correlation(*centred), _correlation(*levels), intelligibility(original, made)


def log_mel(samples: Array) -> Array:
    """(F, 40) every 10 ms."""
    power = np.square(np.abs(vocoder.transform(samples))) / np.square(hann(FRAME)).sum()
    found: Array = np.log(mel_energies(power.astype(np.float32)) + 1e-8)[:, :BANDS]
    return found


def _loudness(samples: Array) -> Array:
    """Rms (F,) every 10 ms."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
    found: Array = np.sqrt(np.square(frames).mean(axis=1))
    return found


def _slow_part(samples: Array) -> float:
    """Part of the loudness's movement that 12.5 rows a second can hold."""
    level = _loudness(samples)
    power = np.square(np.abs(np.fft.rfft(level - level.mean())))
    hertz = np.fft.rfftfreq(len(level), HOP / SAMPLE_RATE)
    return float(power[hertz <= SLOW].sum() / power.sum())


def _of_pitch(heard: Sequence[Take], rows: Sequence[Array], thin: int, source: str, coding: str) -> Iterator[Finding]:
    """The pitch column against the pitch of the sound itself, which is measured every 10 ms."""
    errors, right, common = [], [], []
    for take, own in zip(heard, rows, strict=True):
        pieces = np.lib.stride_tricks.sliding_window_view(take.samples, WINDOW)[::HOP]
        hertz, _ = pitch(np.ascontiguousarray(pieces[:, None]))
        middles = (np.arange(len(pieces)) * HOP + WINDOW / 2) / SAMPLE_RATE
        at = np.minimum((middles / (STEP * thin)).astype(int), len(own) - 1)
        octaves = own[at, vocoder.PITCH]
        voiced, said = hertz > 0, octaves > vocoder.UNVOICED
        right.append(voiced == said)
        common.append(voiced)
        both = voiced & said
        errors.append(12 * np.abs(octaves[both] - np.log2(hertz[both] / 50)))
    told = np.concatenate(common)
    yield Finding(TRIED, source, coding, PITCH_ERROR, float(np.median(np.concatenate(errors))))
    guess = float(max(told.mean(), 1 - told.mean()))
    yield Finding(TRIED, source, coding, VOICED, float(np.concatenate(right).mean()), guess)


def _cut(first: Array, second: Array) -> tuple[Array, Array]:
    size = min(len(first), len(second))
    return first[:size], second[:size]


def _correlation(first: Array, second: Array) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
