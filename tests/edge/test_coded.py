"""Windows as they came: checked at the door, and made Z[0] together as they would be alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_gateway import coded as module
from edge_gateway.coded import CodedWindow, embed
from megace2_iot.messages import PacketWindow, Stage
from megace2_iot.quantize import Quantized, dequantize, quantize
from megace2_iot.stem import Stem

DIMS: Any = {"text": 6, "audio": 3}
STEM = Stem.random(DIMS, 4, 0, kernels={"text": 3})


def window(seed: int, stage: Stage = "features", **steps: int) -> CodedWindow:
    """Noise of so many steps a modality, some of its channels constant, slow, or too fine for integers."""
    rng, sequences = np.random.default_rng(seed), {}
    for modality, count in steps.items():
        width = DIMS[modality] if stage == "features" else STEM.width
        values = rng.standard_normal((count, width)).astype(np.float32)
        values[:, 0] = 3.0
        values[:, 1] = np.arange(count)
        values[:, 2] *= 1e-6
        values[:, 2] += 5
        sequences[modality] = quantize(values, 0.02).to_fields()
    return CodedWindow.read(stage, PacketWindow(seq=1, captured_at=0, sequences=sequences), STEM)


def alone(one: CodedWindow) -> dict[str, np.ndarray[Any, Any]]:
    """Z[0] by the plain way: each sequence restored and embedded by itself."""
    restored = {m: dequantize(coded) for m, coded in one.sequences.items()}
    return {m: STEM.embed(m, x) if one.stage == "features" else x for m, x in restored.items()}


@pytest.mark.parametrize("row_by_row", [1, 10**6])
def test_a_batch_is_embedded_as_each_window_alone(row_by_row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lengths, stages, codings and missing modalities meet in a batch."""
    monkeypatch.setattr("megace2_iot.quantize.ROW_BY_ROW", row_by_row)
    batch = [window(n, text=5 + n % 2, audio=1 + n % 3) for n in range(7)]
    batch += [window(9, text=5), window(10, audio=2), window(11, "embedded", text=5, audio=3)]
    for made, one in zip(embed(batch, STEM), batch, strict=True):
        assert not isinstance(made, str)
        wanted = alone(one)
        assert made.keys() == wanted.keys()
        for modality, z in wanted.items():
            assert np.allclose(made[modality], z, atol=1e-5)  # type: ignore[index]


def test_one_absurd_window_does_not_spoil_its_batch() -> None:
    """It gets a reason, the others their Z[0]."""
    huge = quantize(np.full((4, 6), 3e38, np.float32), 0.02).to_fields()
    bad = CodedWindow.read("features", PacketWindow(seq=1, captured_at=0, sequences={"text": huge}), STEM)
    good = window(1, text=4, audio=2)
    first, told, last = embed([good, bad, good], STEM)
    assert told == "text: values beyond 1e+09 once embedded: scale the features"
    assert np.allclose(first["text"], alone(good)["text"], atol=1e-5)  # type: ignore[index]
    assert np.array_equal(first["audio"], last["audio"])  # type: ignore[index]


@pytest.mark.parametrize(
    ("stage", "modality", "shape", "said"),
    [
        ("features", "vision", (2, 3), "the model takes no vision: it takes text, audio"),
        ("features", "text", (2, 5), "text: features are 5 wide, the model takes 6"),
        ("embedded", "text", (2, 6), r"text: Z\[0\] is 6 wide, the stem 4"),
        ("features", "text", (9, 6), "text: 9 steps, this edge takes 8: send shorter windows"),
        ("features", "text", (0, 6), "a window without a single step"),
    ],
)
def test_a_window_that_does_not_fit_is_told_why(
    stage: Stage, modality: str, shape: tuple[int, int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it takes any room."""
    monkeypatch.setattr(module, "MAX_STEPS", 8)
    fields = quantize(np.zeros(shape, np.float32), 0.02).to_fields()
    strange = PacketWindow(seq=1, captured_at=0, sequences={modality: fields})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=said):
        CodedWindow.read(stage, strange, STEM)


def test_side_by_side_is_the_same_as_one_after_the_other() -> None:
    """All codings at once, in the order of the parts."""
    rng = np.random.default_rng(0)
    parts = [quantize(rng.standard_normal((6, n)).astype(np.float32) * 10.0**-n, 0.02) for n in (1, 3, 2)]
    parts.append(quantize(np.full((6, 2), 7.7, np.float32), 0.02))
    joined = dequantize(Quantized.side_by_side(parts))
    assert np.array_equal(joined, np.concatenate([dequantize(part) for part in parts], axis=1))
