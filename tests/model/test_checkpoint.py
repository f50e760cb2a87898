"""Checkpoints of every method: what was trained comes back, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.baselines.raven import RavenConfig
from megace2_iot.model.checkpoint import load, save
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.methods import ALL, make

DIMS: dict[Modality, int] = {"text": 8, "audio": 5, "vision": 4}


@pytest.mark.parametrize("name", ALL)
def test_a_method_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    """Its config, its parameters and its running statistics: the same answers."""
    model = make(name, DIMS, seed=1)
    values = {m: torch.randn(3, 6, DIMS[m]) for m in MODALITIES}
    lengths = dict.fromkeys(MODALITIES, torch.tensor([6, 4, 5]))
    model.train().training_step(values, lengths)  # moves running statistics
    save(tmp_path / "model.safetensors", model, {"seed": "1"})
    again = load(tmp_path / "model.safetensors")
    assert type(again) is type(model)
    assert again.config == model.config
    assert torch.equal(again(values, lengths), model.eval()(values, lengths))
    assert not list(tmp_path.glob("*.part"))


def test_mega_ce2_keeps_its_own_form(nano: CrossModalTransformer, tmp_path: Path) -> None:
    """Releases and old checkpoints are read by the same function."""
    save(tmp_path / "model.safetensors", nano, {"version": "7"})
    again = load(tmp_path / "model.safetensors")
    assert isinstance(again, CrossModalTransformer)
    assert again.config == nano.config


def test_a_file_that_is_no_checkpoint_is_refused_in_words(tmp_path: Path) -> None:
    """Garbage, an unknown method, a config that is none, and tensors of another size."""
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"no tensors here")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load(path)
    tensors = {"a": np.zeros(2, np.float32)}
    save_file(tensors, path, {"method": "mulan", "config": "{}"})
    with pytest.raises(ValueError, match="of an unknown method: 'mulan'"):
        load(path)
    save_file(tensors, path, {"method": "raven", "config": '{"colour": 1}'})
    with pytest.raises(ValueError, match="not a RavenConfig: unknown: colour"):
        load(path)
    save_file(tensors, path, {"method": "raven", "config": RavenConfig(dims=DIMS).to_json()})
    with pytest.raises(ValueError, match="do not fit its config"):
        load(path)
