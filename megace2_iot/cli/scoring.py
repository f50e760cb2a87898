"""After a demo: every stored release on the whole held-out set, and each edge's base against base with adapter.

Run by the demo's own process, which is no tier, once all tiers have stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from megace2_iot.datasets import Sample
from megace2_iot.model.adapter import Adapter, attach, detach, load_adapter
from megace2_iot.model.evaluation import Metrics, evaluate
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig
from megace2_iot.model.state import load_base
from megace2_iot.model.training import Example
from megace2_iot.stem import Stem
from megace2_iot.tensors import decode_tensors

if TYPE_CHECKING:
    from cloud_aggregator.store import Store
    from megace2_iot.cli.run_demo import Run

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Scores:
    """What the releases and adapters of a run reach."""

    by_version: list[tuple[int, Metrics]]
    edges: dict[str, dict[str, Any]]  # base, adapter: accuracy; samples
    skipped: int  # releases whose blob was not kept


def score(run: Run, tell: Tell) -> Scores | None:
    """Score a run's state; None where no release was made."""
    from cloud_aggregator.store import Store

    torch.set_num_threads(1)  # small matrices: a second thread only waits, and on a busy machine for long
    with Store.open(run.folder / "state" / "cloud") as store:
        family = store.family()
        if family is None:
            return None
        tensors, metadata = decode_tensors(store.blobs.view(family.stem))
        stem = Stem.from_tensors(tensors, {"mult_compat": metadata.get("mult_compat") == "true"})
        model = CrossModalTransformer.seeded(ModelConfig.from_json(family.config), 0).eval()
        by_version, skipped = _releases(store, family.family, model, _held_out(run, stem), tell)
        run.family = family.family
        edges = {edge: _edge(run, edge, number, store, model, stem) for number, edge in enumerate(run.edge_ids)}
    return Scores(by_version, edges, skipped)


def _releases(
    store: Store, family: str, model: CrossModalTransformer, held_out: list[Example], tell: Tell
) -> tuple[list[tuple[int, Metrics]], int]:
    scores, skipped, said = [], 0, time.monotonic()
    releases = store.releases(family)
    for release in releases:
        blob = store.release(family, release.version)
        if blob is None:
            skipped += 1
            continue
        load_base(model, decode_tensors(blob)[0])
        scores.append((release.version, evaluate(model, held_out)))
        if time.monotonic() - said > 5:
            said = time.monotonic()
            tell(f"scoring releases: {release.version} of {releases[-1].version}")
    return scores, skipped


def _edge(run: Run, edge: str, number: int, store: Store, model: CrossModalTransformer, stem: Stem) -> dict[str, Any]:
    """Base and base with adapter on this edge's own held-out samples, over the release that the adapter stands on."""
    own = _examples([s for share in run.dealt[number] for s in share], stem)
    if not own:
        return {"base": None, "adapter": None, "samples": 0, "version": None}
    kept, version = _adapter(run.folder / "state" / edge / "adapter.safetensors", model), None
    if kept is not None:
        adapter, stands_on = kept
        for release in store.releases(run.family):
            if release.sha256 == stands_on and (blob := store.release(run.family, release.version)) is not None:
                load_base(model, decode_tensors(blob)[0])
                version = release.version
    base, with_adapter = evaluate(model, own).acc2, None
    if kept is not None and version is not None:
        attach(model, adapter)
        with_adapter = evaluate(model, own).acc2
        detach(model)
    return {"base": base, "adapter": with_adapter, "samples": len(own), "version": version}


def _adapter(path: Path, model: CrossModalTransformer) -> tuple[Adapter, str] | None:
    """An edge's last adapter, and the hash of the release that it was tuned over."""
    if not path.exists():
        return None
    tensors, metadata = decode_tensors(path.read_bytes())
    stands_on, placement = json.loads(metadata["judged"])["stands_on"]
    adapter = Adapter(model.config, placement)
    load_adapter(adapter, tensors)
    return adapter, str(stands_on)


def _held_out(run: Run, stem: Stem) -> list[Example]:
    return _examples(run.dataset.samples, stem)


def _examples(samples: Any, stem: Stem) -> list[Example]:
    """Labelled test rows as examples, alike lengths together: padding costs time."""
    chosen: list[Sample] = [s for s in samples if s.split == "test" and s.score is not None]
    chosen.sort(key=lambda s: tuple(len(f.values) for f in s.features.values()))
    return [Example({m: stem.embed(m, f.values) for m, f in s.features.items()}, float(s.score or 0)) for s in chosen]
