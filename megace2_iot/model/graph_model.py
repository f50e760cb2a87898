"""Inference of one model by ONNX Runtime: the graphs of `graph.py` that its batches need, and their inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor

from megace2_iot.features import Modality
from megace2_iot.model.config import ModelConfig
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.graph import Plan, build, weights_of
from megace2_iot.model.packing import serves
from megace2_iot.model.streams import Streams

TOGETHER = 400  # steps of one stream, over a batch, up to which streams of like length go together
SCORES = 1 << 26  # bytes of attention weights of one product, which must be allocated
Floats = npt.NDArray[np.float32]


class GraphModel:
    """Answers as `CrossModalTransformer` gives them (to 1e-4), on the CPU, several times as fast."""

    def __init__(
        self, model: CrossModalTransformer, threads: int = 1, sessions: dict[tuple[str, Plan], Any] | None = None
    ) -> None:
        """`sessions` may be shared by models of the same process and `threads`: they hold no weights."""
        self._model, self._threads, self._config = model, threads, model.config.to_json()
        self._sessions = {} if sessions is None else sessions
        self._weights: dict[Plan, dict[str, Any]] = {}

    def pack(self) -> None:
        """Forget packed weights: the model's, or its adapter's, have changed."""
        self._weights.clear()

    def serves(self, lengths: Mapping[Modality, Tensor]) -> bool:
        """Whether it can answer a batch of these lengths (`packing.serves`)."""
        return serves(self._model.config, lengths)

    @torch.inference_mode()
    def __call__(self, z: Mapping[Modality, Tensor], lengths: Mapping[Modality, Tensor]) -> Tensor:
        """Scores (B, outputs) of Z[0] (B, T_m, d), right-padded."""
        batch, longest = len(next(iter(z.values()))), max(x.shape[1] for x in z.values())
        piece = max(1, SCORES // (4 * self._model.config.heads * longest**2))
        if batch <= piece:
            return self._scores(z, lengths)
        parts = [slice(begin, begin + piece) for begin in range(0, batch, piece)]
        return torch.cat(
            [self._scores({m: x[p] for m, x in z.items()}, {m: n[p] for m, n in lengths.items()}) for p in parts]
        )

    def _scores(self, z: Mapping[Modality, Tensor], lengths: Mapping[Modality, Tensor]) -> Tensor:
        streams = Streams(z, lengths, self._model.config)
        adapter = self._model.adapter
        times = {x.shape[1] for x in streams.z.values()}
        rows = len(next(iter(streams.z.values()))) * max(times)
        plan = Plan.of(
            tuple(streams.z),
            together=len(times) == 1 and rows <= TOGETHER,
            adapted=adapter is not None and adapter.placement == "inserted",
        )
        given = {name: onnxruntime.OrtValue.ortvalue_from_numpy(x) for name, x in self._inputs(plan, streams).items()}
        session, weights = self._ready(plan)
        (found,) = session.run_with_ort_values(["scores"], {**weights, **given})
        scores = torch.from_numpy(found.numpy())
        return scores if adapter is None else adapter.correct(scores, streams)

    def _ready(self, plan: Plan) -> tuple[Any, dict[str, Any]]:
        if plan not in self._weights:
            with torch.inference_mode(False):
                packed = weights_of(self._model, plan)
            if (self._config, plan) not in self._sessions:
                session = _session(self._model.config, plan, packed, self._threads)
                self._sessions[self._config, plan] = session
            self._weights[plan] = {n: onnxruntime.OrtValue.ortvalue_from_numpy(x) for n, x in packed.items()}
        return self._sessions[self._config, plan], self._weights[plan]

    def _inputs(self, plan: Plan, streams: Streams) -> dict[str, npt.NDArray[Any]]:
        """What `graph.build` names, beside the weights."""
        config = self._model.config
        inputs: dict[str, npt.NDArray[Any]] = {m: np.ascontiguousarray(x.numpy()) for m, x in streams.z.items()}
        for number, pairs in enumerate(plan.crossings):
            inputs[f"cross_mask_{number}"] = _additive(streams.group_mask(pairs))
            if plan.adapted:
                padding = [streams.padding_mask(target) for target, _ in pairs]
                full = all(bool(mask.all()) for mask in padding)
                inputs[f"adapter_mask_{number}"] = _additive(padding[0][:1] if full else torch.cat(padding))
        for number, targets in enumerate(plan.memories):
            inputs[f"memory_mask_{number}"] = _additive(streams.group_mask([(m, m) for m in targets]))
            time = streams.z[targets[0]].shape[1]
            inputs[f"positions_{number}"] = self._model.memory_positions(time).numpy()
            steps = torch.cat([streams.lengths[target] for target in targets])  # (G B)
            last = steps[:, None] - torch.arange(config.last_k, 0, -1)  # (G B, k)
            counted, last = last >= 0, last.clamp(min=0)
            inputs[f"rows_{number}"] = (last + time * torch.arange(len(steps))[:, None]).flatten().numpy()
            visible = torch.arange(time) <= last[..., None]  # (G B, k, T)
            everything = config.last_k == 1 and bool((steps == time).all())
            inputs[f"last_mask_{number}"] = _additive(visible[:1, None] if everything else visible[:, None])
            if config.last_k > 1:
                inputs[f"counted_{number}"] = (counted / counted.sum(1, keepdim=True))[:, None].float().numpy()
        return inputs


def _session(config: ModelConfig, plan: Plan, weights: Mapping[str, Floats], threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors: a warning of each constant that it folded helps nobody
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between batches the core is others'
    graph = build(config, plan, weights)
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _additive(mask: Tensor) -> Floats:
    return torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf).numpy()
