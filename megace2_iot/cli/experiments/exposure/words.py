"""Which words can be read from what a device sends, by somebody who has the stem: the edge, the cloud, every device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from device_agent.noise import with_noise
from megace2_iot.cli.experiments.exposure.finding import COARSE, EXACT, USUAL, WHOLE, Array, Finding
from megace2_iot.cli.experiments.exposure.inversion import Doubles, Reader
from megace2_iot.cli.experiments.exposure.sentences import Rows, Speech
from megace2_iot.model.config import preset
from megace2_iot.stem import Stem

NOISE = (0.1, 0.3, 1.0, 2.0, 3.0)  # parts of each channel's deviation, as in `[device] noise`
PRESETS = ("nano", "mult", "paper")
MOST = {"nano": 250, "mult": 250, "paper": 60}  # sentences that are attacked
TRIED = "words"
Hits = npt.NDArray[np.bool_]
FIRST, FIVE = "read rightly", "among the first five"
SENT = "part of the spoken words"


def random_stem(name: str, dim: int, seed: int) -> Stem:
    """The text's part of a preset's stem, never trained."""
    config = preset(name, {"text": dim})
    return Stem.random({"text": dim}, config.width, seed, kernels={"text": config.kernels["text"]})


def of_embedded(speech: Speech, seed: int, *, few: bool = False) -> Iterator[Finding]:
    """From Z[0] of each preset with a random stem."""
    for name in PRESETS:
        stem = random_stem(name, speech.vectors.shape[1], seed)
        yield from of_stem(speech, stem, seed, name, MOST[name] // (5 if few else 1))


def of_stem(speech: Speech, stem: Stem, seed: int, name: str, most: int) -> Iterator[Finding]:
    """From Z[0] of one stem, at each coding that words are sent in, and with noise."""
    shares, said = speech.shares(), speech.dealt(seed)[:most]
    reader = Reader.of(stem.weights["text"], speech.vectors, shares)
    source = f"Z[0] of {name} and the stem"
    for coding in (*WHOLE, *COARSE):
        hits = [_hits(reader, row, coding.of_embedded(_z(stem, speech, row))) for row in said]
        yield from _told(source, coding.name, hits, shares)
    random = np.random.default_rng(seed)
    for part in NOISE:
        hits = [_noisy_hits(reader, row, _z(stem, speech, row), part, random) for row in said]
        yield from _told(source, noise_name(part), hits, shares)


def of_features(speech: Speech, seed: int) -> Iterator[Finding]:
    """From the vectors themselves, which the stage `features` sends; and what is left where stop words are not sent."""
    shares, random = speech.shares(), np.random.default_rng(seed)
    reader = _plain(speech, shares)
    said = speech.dealt(seed)[: MOST["nano"]]
    for coding in WHOLE:
        hits = [_hits_of_vectors(reader, row, coding.of_embedded(speech.vectors[row])) for row in said]
        yield from _told("features", coding.name, hits, shares)
    for part in NOISE:
        hits = []
        for row in said:
            sent = with_noise(speech.vectors[row], part, random)
            level = _level(speech.vectors[row], part)
            hits.append(_hits_of_vectors(reader, row, USUAL.of_embedded(sent), level))
        yield from _told("features", noise_name(part), hits, shares)
    whole = np.concatenate(said)
    kept = float(1 - speech.stop[whole].mean())
    yield Finding("words that are sent", "features or Z[0], stop words left out", EXACT.name, SENT, kept, 1.0)


def noise_name(part: float) -> str:
    """Of the coding with noise of that part."""
    return f"bound, noise {part:g}"


def _z(stem: Stem, speech: Speech, row: Rows) -> Array:
    return stem.embed("text", speech.vectors[row])


def _hits(reader: Reader, row: Rows, z: Array, noise: float = 0.0) -> Hits:
    """(T, TOP): whether each guess is right."""
    found: Hits = reader.read(z, noise) == row[:, None]
    return found


def _noisy_hits(reader: Reader, row: Rows, z: Array, part: float, random: np.random.Generator) -> Hits:
    sent = USUAL.of_embedded(with_noise(z, part, random))
    return _hits(reader, row, sent, _level(z, part) / z.shape[1])


def _level(values: Array, part: float) -> float:
    """The noise's mean variance: an attacker knows the setting, and sees the channels."""
    return float(np.mean(np.square(part * (values.std(axis=0) if len(values) > 1 else values.std()))))


def _plain(speech: Speech, shares: Doubles) -> Reader:
    """Reads vectors that no stem has changed."""
    parts = speech.vectors[:, None]
    return Reader(parts, np.square(parts).sum(axis=2), shares, None)


def _hits_of_vectors(reader: Reader, row: Rows, vectors: Array, noise: float = 0.0) -> Hits:
    found: Hits = reader.read_steps(vectors, noise) == row[:, None]
    return found


def _told(source: str, coding: str, hits: Sequence[Hits], shares: Doubles) -> Iterator[Finding]:
    right = np.concatenate(list(hits))
    common = np.sort(shares)[::-1]
    yield Finding(TRIED, source, coding, FIRST, float(right[:, 0].mean()), float(common[0]))
    yield Finding(TRIED, source, coding, FIVE, float(right.any(axis=1).mean()), float(common[:5].sum()))
