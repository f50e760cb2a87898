"""The local model: a smaller architecture above the same stem, fitted to an edge's answers, for devices without torch.

Its release is one envelope: the base as safetensors, the ONNX graph without weights, which takes them by the names
of the base's tensors, and the fit of its confidence. So ONNX Runtime alone runs it, and torch can too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from megace2_iot import codec
from megace2_iot.examples import unpack
from megace2_iot.features import MODALITIES
from megace2_iot.model.config import ModelConfig
from megace2_iot.model.evaluation import answer
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.onnx_export import EXAMPLE, OnnxForm, traced
from megace2_iot.model.state import base_tensors, load_base
from megace2_iot.model.training import Example, TrainingSettings, fit
from megace2_iot.tensors import decode_tensors, encode_tensors

PREFIX = "model."  # of the base's tensors in the graph
DISTILLING = TrainingSettings(learning_rate=2e-3, epochs=4, loss="smooth_l1")


def pocket(config: ModelConfig) -> ModelConfig:
    """The local model beside a released one: one layer each, a narrow feed-forward part; what the stem is, stays."""
    return replace(config, preset=f"{config.preset}-pocket", layers=1, memory_layers=1, ffn_ratio=1)


@dataclass(frozen=True, slots=True)
class Likeness:
    """How a local model's answers compare with its teacher's on samples that neither training saw."""

    agreement: float  # part of the samples on which both give the same label
    mae: float  # mean |local score - teacher's score|
    samples: int


def distil(
    model: CrossModalTransformer, examples: Sequence[Example], settings: TrainingSettings = DISTILLING, seed: int = 0
) -> None:
    """Fit `model` to the teacher's scores of `examples` by Huber's loss."""
    fit(model, examples, settings, seed)


def compare(model: CrossModalTransformer, held_out: Sequence[Example]) -> tuple[Likeness, np.ndarray[Any, Any]]:
    """The likeness, and the local scores (N,) of `held_out`, whose scores are the teacher's. Raises for none."""
    if not held_out:
        raise ValueError("nothing to compare with")
    scores, teacher = answer(model, held_out), np.array([example.score for example in held_out])
    agreed = float(np.mean((scores >= 0) == (teacher >= 0)))
    return Likeness(agreed, float(np.mean(np.abs(scores - teacher))), len(held_out)), scores


class PocketRunner:
    """A release run by torch, as the handlers of a child process."""

    def __init__(self) -> None:
        self._model: CrossModalTransformer | None = None

    def open(self, release: bytes) -> dict[str, Any]:
        """Take a release. Raises ValueError for anything else."""
        fields = codec.decode(release, limit=1 << 30)
        self._model = CrossModalTransformer.seeded(ModelConfig.from_json(fields["config"]), 0).eval()
        load_base(self._model, decode_tensors(fields["base"])[0])
        return {}

    def answer(self, examples: Mapping[str, Any]) -> dict[str, Any]:
        """Scores of packed Z[0]."""
        if self._model is None:
            raise ValueError("no release was opened")
        return {"scores": answer(self._model, [Example(z, 0.0) for z in unpack(examples)]).tolist()}


def graph_of(model: CrossModalTransformer) -> bytes:
    """The ONNX graph from Z[0] and lengths to scores, its weights left outside under the names of the base's tensors.

    It is the same for all releases of an architecture. Raises ImportError without the extra `onnx`.
    """
    import onnx

    width = model.config.width
    z = [torch.zeros(1, EXAMPLE[m], width) for m in MODALITIES]
    lengths = [torch.tensor([EXAMPLE[m]]) for m in MODALITIES]
    shapes: tuple[Any, ...] = (*({1: torch.export.Dim(f"{m}_steps")} for m in MODALITIES), *({} for _ in lengths))
    # Unoptimised: the exporter would fold weights into constants that no name leads to. ONNX Runtime optimises anew.
    graph: Any = traced(OnnxForm(model, embedded=True).eval(), (*z, *lengths), shapes, optimize=False).model_proto
    graph.ClearField("metadata_props")
    graph.graph.ClearField("value_info")
    for node in graph.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    names = {PREFIX + name for name in base_tensors(model)}
    for tensor in graph.graph.initializer:
        if tensor.name in names:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="base")
    data: bytes = graph.SerializeToString()
    return data


def release_of(
    model: CrossModalTransformer, graph: bytes, likeness: Likeness, calibration: tuple[float, float]
) -> bytes:
    """The bytes of a release. `calibration`: P(label as the edge's) = sigmoid(a |score| + b)."""
    return codec.encode(
        {
            "config": model.config.to_json(),
            "base": encode_tensors(base_tensors(model), {}),
            "graph": graph,
            "prefix": PREFIX,
            "calibration": list(calibration),
            "agreement": likeness.agreement,
            "mae": likeness.mae,
            "samples": likeness.samples,
        }
    )
