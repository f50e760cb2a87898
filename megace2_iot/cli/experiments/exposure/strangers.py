"""Which words can be read from Z[0] by somebody who has not the stem: from known sentences, or from nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from megace2_iot.cli.experiments.exposure.finding import EXACT, USUAL, Array, Coding, Finding
from megace2_iot.cli.experiments.exposure.inversion import Doubles, Reader, learned_stem, without_positions
from megace2_iot.cli.experiments.exposure.sentences import Rows, Speech
from megace2_iot.cli.experiments.exposure.words import FIRST, FIVE, PRESETS, random_stem
from megace2_iot.features import Modality
from megace2_iot.model.config import preset
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.state import stem_of
from megace2_iot.stem import Stem

KNOWN = (10, 100, 1000)  # sentences
ATTACKED = {"nano": 250, "mult": 250, "paper": 60}
LINKED = 1500  # words among which the nearest is looked for
CLUSTERED = 12_000  # words that are counted for the attack by frequency
NEAR = 4.0  # times the error of the coding: two steps that are so near hold one word
SEEDS = 2000  # stems that are tried, to know how many a second


def with_known_sentences(speech: Speech, seed: int, *, few: bool = False) -> Iterator[Finding]:
    """The stem is learned from sentences that somebody knows, and others are read by it."""
    sentences, shares = speech.dealt(seed), speech.shares()
    common = np.sort(shares)[::-1]
    for name in PRESETS:
        stem = random_stem(name, speech.vectors.shape[1], seed)
        kernel, attacked = len(stem.weights["text"]), sentences[: ATTACKED[name]]
        attacked = attacked[: len(attacked) // (5 if few else 1)]
        for count in KNOWN[:2] if few else KNOWN:
            known = sentences[ATTACKED["nano"] : ATTACKED["nano"] + count]
            if len(known) < count:
                continue
            seen = [_sent(stem, speech, row, USUAL) for row in known]
            learned = learned_stem([speech.vectors[row] for row in known], seen, kernel)
            reader = Reader.of(learned, speech.vectors, shares)
            right = np.concatenate([reader.read(_sent(stem, speech, row, USUAL)) == row[:, None] for row in attacked])
            tried, source = "words, the stem unknown", f"Z[0] of {name} and {count:,} known sentences"
            yield Finding(tried, source, USUAL.name, FIRST, float(right[:, 0].mean()), float(common[0]))
            yield Finding(tried, source, USUAL.name, FIVE, float(right.any(axis=1).mean()), float(common[:5].sum()))


def with_nothing(speech: Speech, seed: int) -> Iterator[Finding]:
    """Whether a word is known again, and what counting tells."""
    sentences, tried = speech.dealt(seed), "words known again, the stem unknown"
    half = len(sentences) // 2
    said, others = sentences[:half], speech.shares(sentences[half:])
    for name in PRESETS:
        stem = random_stem(name, speech.vectors.shape[1], seed)
        for coding in (EXACT, USUAL):
            found, guess = _linked(_steps(stem, speech, said, LINKED, coding))
            source = f"Z[0] of {name}, nothing else"
            yield Finding(tried, source, coding.name, "the nearest step holds the same word", found, guess)
            if len(stem.weights["text"]) == 1:
                steps = _steps(stem, speech, said, CLUSTERED, coding)
                named = _by_frequency(steps, others)
                measure = "named by how often they come"
                yield Finding(tried, source, coding.name, measure, named, float(others.max()))


def by_seed(speech: Speech, seed: int) -> Iterator[Finding]:
    """How many seeds a second can be tried against one sentence, and whether the right one shows."""
    dims: dict[Modality, int] = {"text": speech.vectors.shape[1]}
    model = CrossModalTransformer.seeded(preset("nano", dims), 1000 + seed)
    stem, row = stem_of(model), speech.dealt(seed)[0]
    steps = without_positions(_sent(stem, speech, row, USUAL))
    candidates = speech.vectors[np.argsort(speech.shares())[::-1][:64]]
    shape, bound = stem.weights["text"].shape, dims["text"] ** -0.5
    generator, found = torch.Generator(), []
    began = time.perf_counter()
    for number in range(1000 + seed - SEEDS // 2, 1000 + seed + SEEDS // 2):
        generator.manual_seed(number)
        weight = torch.empty(shape).uniform_(-bound, bound, generator=generator).numpy()[0]
        seen = candidates @ weight
        nearest = np.square(seen[None] - steps[:, None]).sum(axis=2).min()
        found.append((float(nearest), number))
    took = time.perf_counter() - began
    is_right = float(min(found)[1] == 1000 + seed)
    tried, source = "the stem by its seed", "Z[0] of nano, one sentence"
    yield Finding(tried, source, USUAL.name, "the right one of 2,000 is found", is_right, 1 / SEEDS)
    yield Finding(tried, source, USUAL.name, "seeds a second on one core", SEEDS / took)


def _sent(stem: Stem, speech: Speech, row: Rows, coding: Coding) -> Array:
    return coding.of_embedded(stem.embed("text", speech.vectors[row]))


class _Steps:
    """Steps (N, d) without positions, the word and the sentence of each, and the coding's error (rms a step)."""

    def __init__(self, values: Array, words: Rows, sentences: Rows, error: float) -> None:
        self.values, self.words, self.sentences, self.error = values, words, sentences, error


def _steps(stem: Stem, speech: Speech, said: Sequence[Rows], most: int, coding: Coding) -> _Steps:
    values, words, sentences, error = [], [], [], []
    for number, row in enumerate(said):
        exact = stem.embed("text", speech.vectors[row])
        sent = coding.of_embedded(exact)
        values.append(without_positions(sent))
        error.append(np.square(without_positions(sent) - without_positions(exact)).sum(axis=1))
        words.append(row)
        sentences.append(np.full(len(row), number, np.int32))
        if sum(map(len, words)) >= most:
            break
    rms = float(np.sqrt(np.concatenate(error).mean()))
    return _Steps(np.concatenate(values), np.concatenate(words), np.concatenate(sentences), rms)


def _linked(steps: _Steps) -> tuple[float, float]:
    """Of words that come in another sentence, too, the part whose nearest step there is the same; and by chance."""
    values, words = steps.values, steps.words
    squares = np.square(values).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * values @ values.T
    other = steps.sentences[:, None] != steps.sentences[None]
    distances[~other] = np.inf
    same = (words[:, None] == words[None]) & other
    again = same.any(axis=1)
    right = words[distances.argmin(axis=1)] == words
    chance = same[again].sum(axis=1) / other[again].sum(axis=1)
    return float(right[again].mean()), float(chance.mean())


def _by_frequency(steps: _Steps, shares: Doubles) -> float:
    """Part of the words named rightly: steps that are alike are one word, and the k-th most frequent is the k-th."""
    cluster = _clusters(steps.values, max(NEAR * steps.error, 1e-3))
    sizes = np.bincount(cluster)
    rank = np.empty(len(sizes), np.intp)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    order = np.argsort(-shares, kind="stable")
    named = order[np.minimum(rank[cluster], len(order) - 1)]
    return float((named == steps.words).mean())


def _clusters(values: Array, near: float) -> npt.NDArray[np.intp]:
    """The number (N,) of the first step that each is near to, or of a new one."""
    leaders, found = np.empty_like(values), np.empty(len(values), np.intp)
    count = 0
    for place, value in enumerate(values):
        distances = np.square(leaders[:count] - value).sum(axis=1)
        nearest = int(distances.argmin()) if count else -1
        if count and distances[nearest] <= near * near:
            found[place] = nearest
            continue
        leaders[count], found[place] = value, count
        count += 1
    return found
