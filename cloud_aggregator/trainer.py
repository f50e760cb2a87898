"""The cloud's child process with torch: makes release 1 from a preset or a checkpoint, and scores releases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from megace2_iot.datasets import load
from megace2_iot.datasets.scaling import knows_scale, on_scale_of
from megace2_iot.model import checkpoint as checkpoints
from megace2_iot.model.evaluation import evaluate
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig, preset
from megace2_iot.model.state import base_tensors, load_base, stem_of
from megace2_iot.model.training import Example
from megace2_iot.problems import Problem
from megace2_iot.stem import Stem
from megace2_iot.tensors import decode_tensors, encode_tensors
from megace2_iot.workers import serve


class Trainer:
    """The handlers; `examples` are the held-out samples of `--data`, embedded once."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._samples: list[Any] = []
        self._examples: tuple[str, list[Example]] = ("", [])

    def first(self, name: str, dims: Mapping[Any, int], seed: int, checkpoint: str) -> dict[str, Any]:
        """Release 1: base and stem as safetensors, with config and family. Raises `Problem` for a bad request."""
        try:
            if checkpoint:
                model = _of_checkpoint(Path(checkpoint))
            else:
                model = CrossModalTransformer.seeded(preset(name, dims), seed)
        except (OSError, ValueError) as error:
            raise Problem(str(error)) from None
        stem = stem_of(model)
        compat = "true" if model.config.mult_compat else "false"
        return {
            "family": model.family,
            "config": model.config.to_json(),
            "base": encode_tensors(base_tensors(model), {"config": model.config.to_json()}),
            "stem": encode_tensors(stem.to_tensors(), {"mult_compat": compat}),
        }

    def data(self, path: str, split: str, seed: int, vectors: str, scale_of: str) -> dict[str, Any]:
        """Load the data set whose test rows judge each release, on the scale of the checkpoint `scale_of` if one is
        named and knows its own. Raises `Problem` where there is none.
        """
        try:
            dataset = load(path, seed, split=split, vectors=vectors or None)
            if scale_of and knows_scale(Path(scale_of)):
                dataset = on_scale_of(dataset, Path(scale_of))
        except (OSError, ValueError) as error:
            raise Problem(str(error)) from None
        self._samples = [s for s in dataset.samples if s.split == "test" and s.score is not None]
        return {"samples": len(self._samples), "dims": dict(dataset.dims)}

    def score(self, config: str, base: bytes, stem: bytes) -> dict[str, Any]:
        """Accuracy, F1 and MAE of one release on the held-out samples."""
        model = CrossModalTransformer.seeded(ModelConfig.from_json(config), 0).eval()
        tensors, _ = decode_tensors(base)
        load_base(model, tensors)
        measured = evaluate(model, self._embedded(stem))
        return {"acc2": measured.acc2, "f1": measured.f1, "mae": measured.mae}

    def _embedded(self, stem: bytes) -> list[Example]:
        tensors, metadata = decode_tensors(stem)
        name = str(sorted((k, v.sum().item()) for k, v in tensors.items()))
        if self._examples[0] != name:
            frozen = Stem.from_tensors(tensors, {"mult_compat": metadata.get("mult_compat") == "true"})
            examples = [
                Example({m: frozen.embed(m, f.values) for m, f in s.features.items()}, s.score) for s in self._samples
            ]
            self._examples = (name, examples)
        return self._examples[1]


def _of_checkpoint(path: Path) -> CrossModalTransformer:
    """Raises ValueError for a checkpoint of something that tiers cannot run."""
    model = checkpoints.load(path)
    if not isinstance(model, CrossModalTransformer):
        raise ValueError(f"{path} is a checkpoint of {model.kind}: the tiers run Mega-CE2 only")
    return model


def main() -> None:
    trainer = Trainer()
    serve({"first": trainer.first, "data": trainer.data, "score": trainer.score}, niceness=5)


if __name__ == "__main__":
    main()
