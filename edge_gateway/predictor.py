"""The model in its one thread: weights of the last two stem generations, batches in, scores and confidence out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from megace2_iot.blobs import Blob
from megace2_iot.examples import Embedded
from megace2_iot.model.adapter import Adapter, attach, detach, load_adapter
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig
from megace2_iot.model.serving import FastPath, Precision, Runtime, Serving
from megace2_iot.model.state import load_base
from megace2_iot.model.training import Example, collate
from megace2_iot.tensors import decode_tensors

GENERATIONS = 2  # stem generations whose packets are still answered


@dataclass(frozen=True, slots=True)
class Answering:
    """What stands between the base and an answer: an adapter where the gate chose it, and the confidence's fit."""

    adapter: Mapping[str, np.ndarray[Any, Any]] | None = None
    placement: str = "inserted"
    calibration: tuple[float, float] | None = None  # of sigmoid(a |score| + b)


@dataclass(slots=True)
class _Generation:
    model: CrossModalTransformer
    fast: FastPath
    version: int
    answering: Answering


@dataclass(frozen=True, slots=True)
class Answers:
    """One batch: scores (B,), what made them, and how sure it is."""

    scores: np.ndarray[Any, Any]
    confidences: np.ndarray[Any, Any] | None
    version: int
    adapter: bool


def choose_device(wanted: str) -> torch.device:
    """`auto`, `cpu` or `cuda`; raises ValueError where there is no CUDA device although one is asked for."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("--device cuda: torch finds no CUDA device here; use --device cpu, or install a CUDA build")
    return torch.device("cuda" if wanted == "cuda" or (wanted == "auto" and available) else "cpu")


class Predictor:
    """Every call belongs in the model thread; between two calls of `run` the weights may be swapped."""

    def __init__(
        self, device: str = "auto", threads: int = 1, runtime: Runtime = "auto", precision: Precision = "float32"
    ) -> None:
        """Raises ValueError where device, runtime or precision cannot be had here."""
        torch.set_num_threads(threads)
        self.device = choose_device(device)
        self._serving = Serving(self.device, threads, runtime, precision)
        self.runtime = self._serving.runtime
        self._generations: OrderedDict[str, _Generation] = OrderedDict()

    def load(self, stem: str, config: str, blob: Blob, version: int) -> None:
        """Answer packets of `stem` with this release from now on. Raises ValueError where blob and config differ."""
        tensors, _ = decode_tensors(blob)
        parsed = ModelConfig.from_json(config)
        held = self._generations.get(stem)
        if held is not None and held.model.config == parsed:
            load_base(held.model, tensors)
            held.version = version
        else:
            model = CrossModalTransformer.seeded(parsed, 0).eval().to(self.device)
            load_base(model, tensors)
            self._generations[stem] = _Generation(model, self._serving.path(model), version, Answering())
        self._generations[stem].fast.pack()
        self._generations.move_to_end(stem)
        while len(self._generations) > GENERATIONS:
            self._generations.popitem(last=False)

    def answer_with(self, stem: str, answering: Answering) -> None:
        """Put an adapter on, or take it off."""
        generation = self._generations[stem]
        detach(generation.model)
        if answering.adapter is not None:
            placement: Any = answering.placement
            adapter = Adapter(generation.model.config, placement).eval()
            load_adapter(adapter, answering.adapter)
            attach(generation.model, adapter)
        generation.answering = answering
        generation.fast.pack()

    def knows(self, stem: str) -> bool:
        return stem in self._generations

    def run(self, stem: str, samples: Sequence[Embedded]) -> Answers:
        """Scores of embedded samples; each is the same alone and in any batch (to 1e-5)."""
        generation = self._generations[stem]
        batch = collate([Example(sample, 0.0) for sample in samples], self.device)
        answer = generation.fast if generation.fast.serves(batch.lengths) else generation.model
        with torch.inference_mode():
            scores = answer(batch.z, batch.lengths)[:, 0].float().cpu().numpy()
        confidences, fit = None, generation.answering.calibration
        if fit is not None:
            confidences = 1.0 / (1.0 + np.exp(-(fit[0] * np.abs(scores) + fit[1])))
        return Answers(scores, confidences, generation.version, generation.answering.adapter is not None)
