"""The cloud's child process with torch: makes release 1 from a preset or a checkpoint, and scores releases.

Another one of it answers what edges forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from megace2_iot.blobs import digest
from megace2_iot.codec import DecodeError
from megace2_iot.datasets import load
from megace2_iot.datasets.scaling import knows_scale, on_scale_of
from megace2_iot.examples import Embedded
from megace2_iot.model import checkpoint as checkpoints
from megace2_iot.model.evaluation import answer, evaluate
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig, preset
from megace2_iot.model.state import base_tensors, load_base, stem_of
from megace2_iot.model.training import Example
from megace2_iot.problems import Problem
from megace2_iot.quantize import Quantized, dequantize
from megace2_iot.stem import Stem
from megace2_iot.tensors import decode_tensors, encode_tensors
from megace2_iot.workers import serve

MAX_STEPS = 4096  # of one modality in a forwarded window: attention grows with the square


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


class Answerer:
    """Answers windows as devices coded them, with one model and its stem."""

    def __init__(self) -> None:
        self._model: CrossModalTransformer | None = None
        self._stem: Stem | None = None
        self._stem_id = ""

    def open_release(self, config: str, base: bytes, stem: bytes) -> dict[str, Any]:
        """Answer with this release from now on."""
        model = CrossModalTransformer.seeded(ModelConfig.from_json(config), 0).eval()
        load_base(model, decode_tensors(base)[0])
        tensors, metadata = decode_tensors(stem)
        frozen = Stem.from_tensors(tensors, {"mult_compat": metadata.get("mult_compat") == "true"})
        self._model, self._stem, self._stem_id = model, frozen, digest(stem)
        return {}

    def open_checkpoint(self, path: str) -> dict[str, Any]:
        """Answer with a checkpoint's model from now on. Raises `Problem` where it is none that tiers can run."""
        try:
            model = _of_checkpoint(Path(path)).eval()
        except (OSError, ValueError) as error:
            raise Problem(str(error)) from None
        compat = "true" if model.config.mult_compat else "false"
        stem = stem_of(model)
        name = digest(encode_tensors(stem.to_tensors(), {"mult_compat": compat}))
        self._model, self._stem, self._stem_id = model, stem, name
        return {"width": stem.width}

    def answer(self, questions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A score, or a reason why there is none, for each of `questions` (stage, stem, sequences)."""
        found = [self._embedded(**question) for question in questions]
        ready = [z for z in found if not isinstance(z, str)]
        assert self._model is not None
        scores = iter(answer(self._model, [Example(z, 0.0) for z in ready]).tolist())
        answers: list[dict[str, Any]] = []
        for z in found:
            score = float("nan") if isinstance(z, str) else next(scores)
            reason = z if isinstance(z, str) else "the cloud's model has no finite answer to it"
            answers.append({"score": score} if math.isfinite(score) else {"reason": reason})
        return {"answers": answers}

    def _embedded(self, stage: str, stem: str, sequences: Mapping[Any, Any]) -> Embedded | str:
        """Z[0] of a stranger's window, or why it has none."""
        if self._stem is None:
            return "the cloud has no model yet"
        if stage == "embedded" and stem != self._stem_id:
            return "the cloud's model has another stem: let edges take features only ([edge.scheduling] stages)"
        try:
            values = {m: dequantize(Quantized.from_fields(fields)) for m, fields in sequences.items()}
            if any(len(x) > MAX_STEPS for x in values.values()):
                return f"a sequence of more than {MAX_STEPS} steps"
            if stage == "embedded":
                if wrong := [m for m, x in values.items() if x.shape[1] != self._stem.width]:
                    return f"{wrong[0]}: Z[0] is not {self._stem.width} wide"
                return {m: x for m, x in values.items() if len(x)}
            return {m: self._stem.embed(m, x) for m, x in values.items() if len(x)}
        except (ValueError, DecodeError) as error:
            return str(error)


def _of_checkpoint(path: Path) -> CrossModalTransformer:
    """Raises ValueError for a checkpoint of something that tiers cannot run."""
    model = checkpoints.load(path)
    if not isinstance(model, CrossModalTransformer):
        raise ValueError(f"{path} is a checkpoint of {model.kind}: the tiers run Mega-CE2 only")
    return model


def main() -> None:
    trainer, answerer = Trainer(), Answerer()
    tasks: dict[str, Callable[..., Mapping[str, Any]]] = {
        "first": trainer.first,
        "data": trainer.data,
        "score": trainer.score,
        "open_release": answerer.open_release,
        "open_checkpoint": answerer.open_checkpoint,
        "answer": answerer.answer,
    }
    serve(tasks, niceness=5)


if __name__ == "__main__":
    main()
