"""The data of an experiment, dealt to edges and devices and embedded once by the frozen stem."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from megace2_iot.cli.experiments.federation import EdgeData, Row
from megace2_iot.cli.experiments.request import Request
from megace2_iot.datasets import Dataset, Sample, load
from megace2_iot.datasets.partition import by_edge, dirichlet
from megace2_iot.datasets.sample import Split
from megace2_iot.datasets.splits import resplit
from megace2_iot.datasets.synthetic import synthetic
from megace2_iot.features import Modality
from megace2_iot.labels import half
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.state import stem_of
from megace2_iot.model.training import Example
from megace2_iot.problems import Problem
from megace2_iot.stem import Stem

SHARED_LABELS = 0.2  # of the training samples; their labels go to the edge, as in the demo
QUICK_ROWS = 2000  # train rows of a large data set that are kept with --quick
EARLIER = 0.7  # of a video's samples train where the split is by time


def read_dataset(request: Request, seed: int) -> Dataset:
    """The data of a seed: only the built-in corpus differs from seed to seed, what is split is split by seed 0.

    Raises OSError or ValueError where they cannot be read.
    """
    scale = request.scale
    if request.data == "synthetic" and request.vectors is None:
        dataset = synthetic(seed, sites=scale.edges, samples=scale.samples)
        return by_time(dataset) if request.split == "time" else resplit(dataset, request.split, seed)
    if request.split == "time":
        return by_time(load(request.data, vectors=request.vectors))
    return load(request.data, sites=scale.edges, split=request.split, vectors=request.vectors)


def few(dataset: Dataset, most: int = QUICK_ROWS) -> Dataset:
    """The same with at most so many train rows, spread over all of them."""
    train = dataset.split("train")
    if len(train) <= most:
        return dataset
    kept, numbers = set(range(0, len(train), -(-len(train) // most))), iter(range(len(train)))
    samples = tuple(sample for sample in dataset.samples if sample.split != "train" or next(numbers) in kept)
    note = f"quick: {len(kept):,} of {len(train):,} train rows are used"
    return replace(dataset, samples=samples, notes=(*dataset.notes, note))


def by_time(dataset: Dataset) -> Dataset:
    """The first part of each group's samples trains, the later part tests: who is answered is known already."""
    sizes, seen, splits = Counter(s.group for s in dataset.samples), Counter[str](), dict[int, Split]()
    for number in sorted(range(len(dataset.samples)), key=lambda number: dataset.samples[number].start):
        group = dataset.samples[number].group
        splits[number] = "train" if seen[group] < EARLIER * sizes[group] else "test"
        seen[group] += 1
    samples = tuple(replace(sample, split=splits[number]) for number, sample in enumerate(dataset.samples))
    notes = [*dataset.notes, f"split by time: the first {EARLIER:.0%} of each video or stream train, the rest test"]
    if saw := sum(sample.features_saw_label for sample in samples):
        notes.append(f"this split proves nothing: the features of {saw:,} samples saw their own labels")
    return replace(dataset, samples=samples, notes=tuple(notes))


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """What a seed's runs learn from; every run of our model begins from `model`.

    Samples are embedded by its stem, or raw features: then `dims` are their widths.
    """

    dataset: Dataset
    digest: str
    dims: Mapping[Modality, int]
    model: CrossModalTransformer
    edges: tuple[EdgeData, ...]


def make_corpus(
    dataset: Dataset,
    seed: int,
    *,
    edges: int,
    devices: int,
    alpha: float | None = None,
    preset_name: str = "nano",
    raw: bool = False,
) -> Corpus:
    """A data set dealt whole by stream and site, or with `alpha` skewed by label; release 1 from `seed`.

    Raises ValueError where it cannot be dealt.
    """
    model = CrossModalTransformer.seeded(preset(preset_name, dataset.dims), seed)
    dealt = _deal(dataset, edges, devices, alpha, seed)
    stem = None if raw else stem_of(model)
    parts = tuple(_edge_data(shares, stem, f"edge-{number}") for number, shares in enumerate(dealt, 1))
    for number, part in enumerate(parts, 1):
        if not part.held_out or not all(part.devices):
            raise ValueError(f"edge {number} has no held-out samples, or a device without training samples")
    return Corpus(dataset, digest_of(dataset), dataset.dims, model, parts)


class Corpora:
    """An experiment's data: the newest seed's, embedded and raw; `digests` of all seeds that were used."""

    def __init__(self, request: Request) -> None:
        self._request, self._seed = request, -1
        self._dataset: Dataset | None = None
        self._made: dict[bool, Corpus] = {}
        self.digests: dict[int, str] = {}
        self.name = request.data

    def dataset(self, seed: int) -> Dataset:
        """The data of a seed, not dealt. Raises `Problem` where they cannot be read."""
        if seed != self._seed or self._dataset is None:
            try:
                dataset = read_dataset(self._request, seed)
            except (OSError, ValueError) as error:
                raise Problem(f"the experiment cannot use {self._request.data}: {error}") from None
            self._dataset = few(dataset) if self._request.quick else dataset
            self._seed, self._made, self.name = seed, {}, dataset.name
            self.digests[seed] = digest_of(self._dataset)
        return self._dataset

    def of(self, seed: int, *, raw: bool = False) -> Corpus:
        """The data of a seed. Raises `Problem` where they do not fit the site."""
        dataset = self.dataset(seed)
        if raw not in self._made:
            request, scale = self._request, self._request.scale
            try:
                self._made[raw] = make_corpus(
                    dataset,
                    seed,
                    edges=scale.edges,
                    devices=scale.devices,
                    alpha=request.alpha,
                    preset_name=request.preset,
                    raw=raw,
                )
            except ValueError as error:
                raise Problem(f"the experiment cannot use {request.data}: {error}") from None
        return self._made[raw]


def digest_of(dataset: Dataset) -> str:
    """sha256 in hex over all samples: equal for equal data."""
    seen = hashlib.sha256()
    for sample in dataset.samples:
        seen.update(f"{sample.id} {sample.group} {sample.split} {sample.site} {sample.score}".encode())
        for modality, features in sample.features.items():
            seen.update(modality.encode() + features.values.tobytes())
    return seen.hexdigest()


def _deal(
    dataset: Dataset, edges: int, devices: int, alpha: float | None, seed: int
) -> Sequence[Sequence[Sequence[Sample]]]:
    if alpha is None:
        return by_edge(dataset.samples, edges, devices)
    shares = dirichlet(dataset.samples, edges * devices, alpha, seed)  # a device's test rows are as skewed as its own
    return [shares[edge * devices : (edge + 1) * devices] for edge in range(edges)]


def _edge_data(shares: Sequence[Sequence[Sample]], stem: Stem | None, edge: str) -> EdgeData:
    private: list[list[Sample]] = []
    halves: dict[str, list[Sample]] = {"fit": [], "gate": []}
    for number, share in enumerate(shares):
        trained = [s for s in share if s.split == "train" and s.score is not None]
        kept: list[Sample] = []
        for seq, sample in enumerate(trained, 1):
            shared = int(seq * SHARED_LABELS) != int((seq - 1) * SHARED_LABELS)  # spread evenly, as a device does
            side = half(sample.group, f"{edge}-device-{number}", 1, seq)
            if shared:
                halves[side].append(sample)
            if not shared or side == "fit":  # what judges the adapter, no base has seen
                kept.append(sample)
        private.append(kept)
    held_out = [s for share in shares for s in share if s.split == "test" and s.score is not None]
    held_out.sort(key=_lengths)  # alike lengths together: padding costs time
    return EdgeData(
        devices=tuple(_examples(kept, stem) for kept in private),
        fit=_examples(halves["fit"], stem),
        gate=_examples([s for s in halves["gate"] if not s.features_saw_label], stem),
        held_out=_examples(held_out, stem),
        rows=tuple(Row(s.id, s.group) for s in held_out),
    )


def _lengths(sample: Sample) -> tuple[int, ...]:
    return tuple(len(f.values) for f in sample.features.values())


def _examples(samples: Sequence[Sample], stem: Stem | None) -> tuple[Example, ...]:
    return tuple(
        Example(
            {m: stem.embed(m, f.values) if stem else f.values for m, f in s.features.items()}, float(s.score or 0.0)
        )
        for s in samples
    )
