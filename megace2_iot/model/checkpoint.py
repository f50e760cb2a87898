"""Checkpoints of every method: one safetensors file with its tensors, and which method of which config it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from megace2_iot.model.ablation import AblationConfig, SingleTarget, Unimodal
from megace2_iot.model.baselines.ef_lstm import EfLstm, EfLstmConfig
from megace2_iot.model.baselines.lf_lstm import LfLstm, LfLstmConfig
from megace2_iot.model.baselines.mctn import Mctn, MctnConfig
from megace2_iot.model.baselines.raven import Raven, RavenConfig
from megace2_iot.model.baselines.v2em_lite import V2emLite, V2emLiteConfig
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.method import Method
from megace2_iot.model.state import load_checkpoint, save_checkpoint

_FROM_JSON: Mapping[str, Callable[[str], Method]] = {
    EfLstm.kind: lambda text: EfLstm(EfLstmConfig.from_json(text)),
    LfLstm.kind: lambda text: LfLstm(LfLstmConfig.from_json(text)),
    Mctn.kind: lambda text: Mctn(MctnConfig.from_json(text)),
    Raven.kind: lambda text: Raven(RavenConfig.from_json(text)),
    V2emLite.kind: lambda text: V2emLite(V2emLiteConfig.from_json(text)),
    Unimodal.kind: lambda text: Unimodal(AblationConfig.from_json(text)),
    SingleTarget.kind: lambda text: SingleTarget(AblationConfig.from_json(text)),
}


def save(path: Path, model: CrossModalTransformer | Method, metadata: Mapping[str, str] | None = None) -> None:
    """Write a model and what it is, by rename; Mega-CE2's own form is that of `state.save_checkpoint`."""
    if isinstance(model, CrossModalTransformer):
        save_checkpoint(path, model, metadata)
        return
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    about = {**(metadata or {}), "method": model.kind, "config": model.config.to_json()}
    part = path.with_name(path.name + ".part")
    part.write_bytes(to_bytes(tensors, about))
    os.replace(part, path)


def load(path: Path) -> CrossModalTransformer | Method:
    """The model of a checkpoint, in evaluation mode: a `CrossModalTransformer`, or a `Method` of its own class.

    Raises ValueError for a file that is no checkpoint of ours.
    """
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if "method" not in about:
        return load_checkpoint(path)
    if about["method"] not in _FROM_JSON:
        raise ValueError(f"{path} is of an unknown method: {about['method']!r}")
    model = _FROM_JSON[about["method"]](about.get("config", ""))
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ValueError(f"the tensors of {path} do not fit its config: {error}") from error
    return model.eval()
