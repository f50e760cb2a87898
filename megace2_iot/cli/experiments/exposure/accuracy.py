"""What hiding costs: accuracy of a model that learns from a stream and answers it, one option after another.

The model is trained as `megace2 train` does it, stem included: a random stem 16 wide leaves little of 300 numbers a
word. A device learns from its own windows, which have no noise; what it sends has. `learnt with it` trains what is
above the stem on noisy windows, as an edge does on its labelled store.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from device_agent.extraction.stop_words import STOP_WORDS
from device_agent.noise import with_noise
from megace2_iot.cli.experiments.exposure.finding import COARSE, EXACT, RUNGS, USUAL, Array, Finding
from megace2_iot.cli.experiments.exposure.words import NOISE, noise_name
from megace2_iot.datasets import Dataset, Sample
from megace2_iot.datasets.metrics import metrics
from megace2_iot.datasets.words import Hashed, read_vectors
from megace2_iot.features import Features, Modality
from megace2_iot.model import checkpoint
from megace2_iot.model.evaluation import answer
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.runs import MEGACE2, recommended, saw_labels, train
from megace2_iot.model.state import load_stem, stem_of
from megace2_iot.model.training import Example, fit

TRIED, ACCURACY, ERROR = "what hiding costs", "accuracy", "MAE"
Sequences = Mapping[Modality, Array]
Change = Callable[[Sequences], Sequences]


class Bench:
    """One seed's data and its model, trained as `megace2 train` trains it: the stem, too."""

    def __init__(self, dataset: Dataset, seed: int, name: str, epochs: int | None = None) -> None:
        self._dataset = dataset
        settings = recommended(MEGACE2, seed, name, leaking=saw_labels(dataset))
        training = settings.training if epochs is None else replace(settings.training, epochs=epochs)
        self._settings = replace(settings, training=training)
        self._rows = {split: _rated(dataset, split) for split in ("train", "test")}
        truth = np.array([score for _, score in self._rows["test"]])
        self.guess = float(max((truth >= 0).mean(), (truth < 0).mean()))
        self.train()

    def train(self, features: Change = dict) -> None:
        """From the beginning, on features that are changed."""
        with tempfile.TemporaryDirectory() as name:
            train(self._settings, _changed(self._dataset, features), Path(name))
            model = checkpoint.load(Path(name) / "best.safetensors")
        assert isinstance(model, CrossModalTransformer)
        self._model, self.stem = model, stem_of(model)

    def train_above(self, sent: Change = dict, *, random: bool = False) -> None:
        """What is above the stem alone, from the beginning, on Z[0] that is changed; the stem may be a random one."""
        fresh = CrossModalTransformer.seeded(self._model.config, self._settings.seed)
        if random:
            self.stem = stem_of(fresh)
        load_stem(fresh, self.stem)
        fit(fresh, self._examples("train", dict, sent), self._settings.training, self._settings.seed)
        self._model = fresh

    def says(self, words: frozenset[bytes]) -> bool:
        """Whether any of these vectors is among the test words."""
        texts = (values["text"] for values, _ in self._rows["test"] if "text" in values)
        return bool(words) and any(row.tobytes() in words for text in texts for row in text)

    def measure(self, features: Change = dict, sent: Change = dict) -> dict[str, float]:
        """Of the model as it is, on test windows that are changed likewise."""
        examples = self._examples("test", features, sent)
        found = metrics(answer(self._model, examples), np.array([e.score for e in examples]))
        return {ACCURACY: found.acc2, ERROR: found.mae}

    def _examples(self, split: str, features: Change, sent: Change) -> list[Example]:
        found = []
        for values, score in self._rows[split]:
            z = {m: self.stem.embed(m, part) for m, part in features(values).items() if len(part)}
            found.append(Example(sent(z), score))
        return [example for example in found if example.z]


def of_options(bench: Bench, seed: int) -> Iterator[Finding]:
    """Every option's accuracy; those that only change what is sent share one training."""
    for coding in (EXACT, *(rung for rung in RUNGS if rung.thin == 1), *COARSE):
        yield from _told(bench, "Z[0]", coding.name, bench.measure(sent=_each(coding.of_embedded)))
    for part in NOISE:
        noise = _noise(part, seed)
        yield from _told(bench, "Z[0]", noise_name(part), bench.measure(sent=noise))
        yield from _told(bench, "features", noise_name(part), bench.measure(features=_noise(part, seed)))
    for part in NOISE:
        bench.train_above(_noise(part, seed + 1))
        found = bench.measure(sent=_noise(part, seed))
        yield from _told(bench, "Z[0], learnt with it", noise_name(part), found)


def of_less(bench: Bench, dims: Mapping[Modality, int], stop: frozenset[bytes]) -> Iterator[Finding]:
    """A stem that was never trained; a modality is turned off, or stop words are; each trains anew."""
    bench.train_above(random=True)
    found = bench.measure(sent=_each(USUAL.of_embedded))
    yield from _told(bench, "Z[0] of a random stem", USUAL.name, found)
    for modality in dims if len(dims) > 1 else ():
        off = _without(modality)
        bench.train(features=off)
        yield from _told(bench, f"{modality} turned off", USUAL.name, bench.measure(off, _each(USUAL.of_embedded)))
    if bench.says(stop):
        fewer = _without_words(stop)
        bench.train(features=fewer)
        found = bench.measure(fewer, _each(USUAL.of_embedded))
        yield from _told(bench, "stop words left out", USUAL.name, found)


def stop_rows(vectors: Path | None, dim: int) -> frozenset[bytes]:
    """The vectors of stop words, as a data set of sentences has them."""
    words = sorted(STOP_WORDS)
    try:
        rows = (
            Hashed(dim).look_up(words) if vectors is None else read_vectors(vectors.expanduser(), words).look_up(words)
        )
    except ValueError:  # none of them is in the file
        return frozenset()
    return frozenset(row.tobytes() for row in rows)


def _rated(dataset: Dataset, split: str) -> list[tuple[Sequences, float]]:
    rows: Sequence[Sample] = dataset.split(split)  # type: ignore[arg-type]
    return [({m: f.values for m, f in s.features.items()}, float(s.score)) for s in rows if s.score is not None]


def _changed(dataset: Dataset, features: Change) -> Dataset:
    """The same samples with other features, at the same rates."""
    samples = []
    for sample in dataset.samples:
        new = features({m: f.values for m, f in sample.features.items()})
        kept = {m: Features(part, sample.features[m].rate, sample.features[m].start) for m, part in new.items()}
        samples.append(replace(sample, features=kept))
    return replace(dataset, samples=tuple(samples))


def _each(change: Callable[[Array], Array]) -> Change:
    return lambda values: {m: change(part) for m, part in values.items()}


def _noise(part: float, seed: int) -> Change:
    random = np.random.default_rng(seed)
    return _each(lambda values: USUAL.of_embedded(with_noise(values, part, random)))


def _without(modality: Modality) -> Change:
    return lambda values: {m: part for m, part in values.items() if m != modality}


def _without_words(stop: frozenset[bytes]) -> Change:
    """As a device does: a sentence of nothing but stop words keeps them."""

    def kept(values: Array) -> Array:
        chosen = np.array([row.tobytes() not in stop for row in values], bool)
        return values[chosen] if chosen.any() else values

    return lambda values: {m: kept(part) if m == "text" else part for m, part in values.items()}


def _told(bench: Bench, source: str, coding: str, found: Mapping[str, float]) -> Iterator[Finding]:
    for measure, value in found.items():
        yield Finding(TRIED, source, coding, measure, value, bench.guess if measure == ACCURACY else None)
