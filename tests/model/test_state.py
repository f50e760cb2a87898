"""A model's tensors: what is shared, what is frozen, what stays, and what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from megace2_iot.model.adapter import Adapter, attach
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.state import (
    base_tensors,
    load_base,
    load_checkpoint,
    load_stem,
    save_checkpoint,
    stem_of,
)
from megace2_iot.stem import Stem


def test_the_base_is_nine_encoders_and_a_head(nano: CrossModalTransformer) -> None:
    """Neither the stem nor an adapter is ever part of what is averaged."""
    attach(nano, Adapter(nano.config))
    groups = {name.split(".")[0] for name in base_tensors(nano)}
    assert len(groups) == 10
    assert "head" in groups
    assert not groups & {"stem", "adapter", "memory_positions"}


def test_the_base_there_and_back(nano: CrossModalTransformer) -> None:
    """Tensors are copies, and loading them restores the model."""
    tensors = base_tensors(nano)
    moved = {name: tensor + 1.0 for name, tensor in tensors.items()}
    load_base(nano, moved)
    np.testing.assert_array_equal(base_tensors(nano)["head.out.bias"], tensors["head.out.bias"] + 1.0)


def test_a_base_that_does_not_fit_changes_nothing(nano: CrossModalTransformer) -> None:
    """A wrong or absent tensor is named, and the model stays as it was."""
    tensors = base_tensors(nano)
    wrong = {**tensors, "head.out.bias": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"head\.out\.bias is \(3,\), expected \(1,\)"):
        load_base(nano, wrong)
    del wrong["head.out.bias"]
    with pytest.raises(ValueError, match=r"head\.out\.bias is absent"):
        load_base(nano, wrong)
    assert all(np.array_equal(tensor, base_tensors(nano)[name]) for name, tensor in tensors.items())


def test_a_stem_is_given_and_taken(nano: CrossModalTransformer) -> None:
    """A new stem generation replaces the old one, and only where its shapes are the config's."""
    stem = Stem.random(nano.config.dims, 16, seed=9)
    load_stem(nano, stem)
    np.testing.assert_array_equal(stem_of(nano).weights["audio"], stem.weights["audio"])
    with pytest.raises(ValueError, match="do not fit the model"):
        load_stem(nano, Stem.random(nano.config.dims, 20, seed=9))


def test_a_checkpoint_is_the_whole_model_without_its_adapter(nano: CrossModalTransformer, tmp_path: Path) -> None:
    """Stem, base and config come back; the adapter never leaves its edge by this way either."""
    path = tmp_path / "release.safetensors"
    attach(nano, Adapter(nano.config))
    save_checkpoint(path, nano, {"version": "7"})
    again = load_checkpoint(path)
    assert again.config == nano.config
    assert again.adapter is None
    assert b"adapter" not in path.read_bytes()
    assert all(torch.equal(p, nano.get_parameter(name)) for name, p in again.named_parameters())


def test_a_file_that_is_no_checkpoint_is_refused_in_words(tmp_path: Path) -> None:
    """Garbage, and tensors of some other program."""
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"no tensors here")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_checkpoint(path)
    save_file({"a": np.zeros(2, np.float32)}, path)
    with pytest.raises(ValueError, match="no model config"):
        load_checkpoint(path)
