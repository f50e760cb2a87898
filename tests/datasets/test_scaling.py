"""One scale for all that a model sees: that of the rows it was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from megace2_iot.datasets.mosi import samples_of_table
from megace2_iot.datasets.sample import Dataset, Sample
from megace2_iot.datasets.scaling import LIMIT, fitted, from_json, on_scale_of, rescaled, scaled, to_json
from megace2_iot.features import Features
from megace2_iot.tensors import encode_tensors


def test_mean_0_and_spread_1_over_the_blocks() -> None:
    """A constant channel becomes 0, a wild one is clipped."""
    rng = np.random.default_rng(0)
    blocks = [np.c_[rng.normal(7, 3, n), np.full(n, 5.0)] for n in (40, 60)]
    by = fitted(blocks)
    moved = np.concatenate([scaled(block, by) for block in blocks])
    assert np.allclose(moved.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(moved.std(axis=0), [1, 0], atol=1e-6)
    assert scaled(np.array([[1e9, 5.0]]), by).tolist() == [[LIMIT, 0.0]]


def table(rows: slice, split: str, shift: float) -> Dataset:
    rng = np.random.default_rng(1)
    values = {m: rng.normal(shift, 2 + shift, (60, 3)).astype(np.float32)[rows] for m in ("text", "audio", "vision")}
    count = len(values["text"])
    more = {"segment": np.arange(count), "start": np.arange(count) * 1.0, "score": np.ones(count)}
    return samples_of_table(
        {**values, **more, "video": np.array(["v"] * count), "split": np.array([split] * count)},
        None,  # type: ignore[arg-type]
    )


def test_the_scale_of_a_checkpoint(tmp_path: Path) -> None:
    """What device and cloud put features on; where a scale is unknown on either side, nothing is guessed."""
    both, alone = table(slice(0, 60), "train", 1.0), table(slice(40, 60), "test", 1.0)
    (tmp_path / "trained").write_bytes(encode_tensors({}, {"scaling": to_json(both.scaling)}))
    (tmp_path / "preset").write_bytes(encode_tensors({}, {"config": "{}"}))
    moved, wanted = on_scale_of(alone, tmp_path / "trained"), rescaled(alone, both.scaling)
    for got, expected in zip(moved.samples, wanted.samples, strict=True):
        np.testing.assert_array_equal(got.features["audio"].values, expected.features["audio"].values)
    with pytest.raises(ValueError, match="preset does not say how its training data were standardised"):
        on_scale_of(alone, tmp_path / "preset")
    with pytest.raises(ValueError, match="mosi does not say how its text and audio and vision was standardised"):
        on_scale_of(replace(alone, scaling={}), tmp_path / "trained")


def test_other_rows_follow_the_scale_of_the_train_rows() -> None:
    """Test rows that come in a file of their own get the values that they would have beside the train rows."""
    both, alone = table(slice(0, 60), "train", 1.0), table(slice(40, 60), "test", 1.0)
    moved = rescaled(alone, from_json(to_json(both.scaling)))
    wanted, got = both.samples[-1].features["audio"].values[-1], moved.samples[-1].features["audio"].values[-1]
    assert not np.allclose(alone.samples[-1].features["audio"].values[-1], wanted, atol=1e-3)
    assert np.allclose(got, wanted, atol=1e-4)


def test_data_of_another_width_is_refused() -> None:
    """Before a model is given nonsense."""
    features = {"text": Features(np.zeros((2, 4), np.float32))}
    sample = Sample("a", "g", "test", 0.0, 1.0, features)  # type: ignore[arg-type]
    other = Dataset("x", {"text": 4}, (sample,), scaling={"text": fitted([np.zeros((2, 4))])})
    with pytest.raises(ValueError, match="text features are 4 wide, the model was trained on 3"):
        rescaled(other, {"text": fitted([np.zeros((2, 3))])})


@pytest.mark.parametrize("text", ["", "7", '{"text": 1}', '{"text": [["a"], [1]]}', '{"text": [[1]]}'])
def test_damaged_scalings_raise_value_error_only(text: str) -> None:
    """Metadata comes from strangers."""
    with pytest.raises(ValueError, match="not a scaling"):
        from_json(text)
