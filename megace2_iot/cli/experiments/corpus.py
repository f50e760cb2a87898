"""The data of an experiment, dealt to edges and devices and embedded once by the frozen stem."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megace2_iot.cli.experiments.federation import EdgeData
from megace2_iot.cli.experiments.request import Request
from megace2_iot.datasets import Dataset, Sample, load
from megace2_iot.datasets.partition import by_edge, dirichlet
from megace2_iot.datasets.synthetic import synthetic
from megace2_iot.features import Modality
from megace2_iot.labels import half
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.state import stem_of
from megace2_iot.model.training import Example
from megace2_iot.problems import Problem
from megace2_iot.stem import Stem

SHARED_LABELS = 0.2  # of the training samples; their labels go to the edge, as in the demo


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """What a seed's runs learn from; every run of our model begins from `model`.

    Samples are embedded by its stem, or raw features: then `dims` are their widths.
    """

    name: str
    digest: str
    notes: tuple[str, ...]
    dims: Mapping[Modality, int]
    model: CrossModalTransformer
    edges: tuple[EdgeData, ...]


def make_corpus(
    data: str,
    seed: int,
    *,
    edges: int,
    devices: int,
    samples: int,
    alpha: float | None,
    preset_name: str = "nano",
    raw: bool = False,
) -> Corpus:
    """`data` dealt whole by stream and site, or with `alpha` skewed by label; release 1 from `seed`.

    `samples` is the length of a stream of the built-in corpus. Raises OSError or ValueError where it cannot be dealt.
    """
    built_in = data == "synthetic"
    dataset = synthetic(seed, sites=edges, samples=samples) if built_in else load(data, seed, edges)
    model = CrossModalTransformer.seeded(preset(preset_name, dataset.dims), seed)
    dealt = _deal(dataset, edges, devices, alpha, seed)
    stem = None if raw else stem_of(model)
    parts = tuple(_edge_data(shares, stem, f"edge-{number}") for number, shares in enumerate(dealt, 1))
    for number, part in enumerate(parts, 1):
        if not part.held_out or not all(part.devices):
            raise ValueError(f"edge {number} has no held-out samples, or a device without training samples")
    return Corpus(dataset.name, digest_of(dataset), dataset.notes, dataset.dims, model, parts)


class Corpora:
    """An experiment's data: the newest seed's, embedded and raw; `digests` of all seeds that were used."""

    def __init__(self, request: Request) -> None:
        self._request, self._seed = request, -1
        self._made: dict[bool, Corpus] = {}
        self.digests: dict[int, str] = {}
        self.name = request.data

    def of(self, seed: int, *, raw: bool = False) -> Corpus:
        """The data of a seed. Raises `Problem` where they do not fit the site."""
        if seed != self._seed:
            self._seed, self._made = seed, {}
        if raw not in self._made:
            try:
                self._made[raw] = self._make(seed, raw)
            except (OSError, ValueError) as error:
                raise Problem(f"the experiment cannot use {self._request.data}: {error}") from None
            self.digests[seed], self.name = self._made[raw].digest, self._made[raw].name
        return self._made[raw]

    def _make(self, seed: int, raw: bool) -> Corpus:
        request, scale = self._request, self._request.scale
        return make_corpus(
            request.data,
            seed,
            edges=scale.edges,
            devices=scale.devices,
            samples=scale.samples,
            alpha=request.alpha,
            preset_name=request.preset,
            raw=raw,
        )


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
    return EdgeData(
        devices=tuple(_examples(kept, stem) for kept in private),
        fit=_examples(halves["fit"], stem),
        gate=_examples([s for s in halves["gate"] if not s.features_saw_label], stem),
        held_out=_examples(sorted(held_out, key=_lengths), stem),  # alike lengths together: padding costs time
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
