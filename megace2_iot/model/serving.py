"""Which path answers: ONNX Runtime on a CPU where it is installed, else torch with fused streams."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from megace2_iot.features import Modality
from megace2_iot.model.fused import FusedModel
from megace2_iot.model.fusion import CrossModalTransformer

Runtime = Literal["auto", "onnx", "torch"]
Precision = Literal["float32", "bfloat16"]


class FastPath(Protocol):
    """Inference of one model, with its adapter; the model itself answers what it does not serve."""

    def pack(self) -> None:
        """Forget packed weights: the model's, or its adapter's, have changed."""

    def serves(self, lengths: Mapping[Modality, Tensor]) -> bool:
        """Whether it can answer a batch of these lengths."""

    def __call__(self, z: Mapping[Modality, Tensor], lengths: Mapping[Modality, Tensor]) -> Tensor:
        """Scores (B, outputs) of Z[0] (B, T_m, d), right-padded."""


class Serving:
    """How the models of one process answer. `runtime` is what was chosen: `onnx` or `torch`."""

    def __init__(
        self, device: torch.device, threads: int = 1, runtime: Runtime = "auto", precision: Precision = "float32"
    ) -> None:
        """Raises ValueError where what is asked for cannot be had here."""
        onnx = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
        fits = device.type == "cpu" and precision == "float32"
        if runtime == "onnx" and not fits:
            raise ValueError("runtime onnx answers on the CPU and in float32: set runtime to auto")
        if runtime == "onnx" and not onnx:
            raise ValueError("runtime onnx needs ONNX Runtime: pip install 'megace2-iot[onnx]', or set it to auto")
        self.runtime: Runtime = "onnx" if onnx and fits and runtime != "torch" else "torch"
        self._threads = threads
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._sessions: dict[Any, Any] = {}

    def path(self, model: CrossModalTransformer) -> FastPath:
        """For one model; all that are alike share what does not depend on weights."""
        if self.runtime == "torch":
            return FusedModel(model, self._dtype)
        from megace2_iot.model.graph_model import GraphModel  # an extra: torch alone is enough

        return GraphModel(model, self._threads, self._sessions)
