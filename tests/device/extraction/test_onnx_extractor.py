"""A user's ONNX model of pictures, and what is said of one that does not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent.extraction.onnx import OnnxExtractor
from device_agent.extraction.rows import Rows
from device_agent.media.chunks import Picture, Words
from megace2_iot.problems import Problem

onnx = pytest.importorskip("onnx", reason="ONNX is not installed (pip install 'megace2-iot[onnx]')")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (pip install 'megace2-iot[onnx]')")


def _model(
    path: Path, shape: list[Any], *, kind: int = 1, op: str = "GlobalAveragePool", inputs: int = 1, **told: str
) -> Path:
    """A graph of one node: by default the mean of each channel, (N, 3, 1, 1)."""
    names = [f"x{i}" for i in range(inputs)]
    given = [onnx.helper.make_tensor_value_info(name, kind, shape) for name in names]
    result = onnx.helper.make_tensor_value_info("y", 7 if op == "Shape" else kind, None)
    graph = onnx.helper.make_graph([onnx.helper.make_node(op, names, ["y"])], "g", given, [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, told)
    onnx.save(model, path)
    return path


def _picture(red: int, green: int, blue: int, start: float = 0.0, shape: tuple[int, int] = (6, 8)) -> Picture:
    return Picture(np.full((*shape, 3), (red, green, blue), np.uint8), start)


def test_a_picture_is_a_row(tmp_path: Path) -> None:
    """Channels in 0..1, the size it wants, D of its output, a time, and what was seen."""
    extractor = OnnxExtractor(_model(tmp_path / "m.onnx", [1, 3, 6, 8]), 10.0)
    assert (extractor.size, extractor.dim, extractor.step) == ((8, 6), 3, 0.1)
    rows = extractor.push(_picture(255, 51, 0, 2.5))
    assert rows is not None
    assert rows.values == pytest.approx(np.array([[1.0, 0.2, 0.0]]))
    assert (rows.values.dtype, rows.times.tolist()) == (np.float32, [2.5])
    assert set(rows.observed) == {"sharpness", "dark", "bright"}
    assert extractor.push(_picture(1, 2, 3, 2.51)) is None
    assert extractor.push(Words("hello", 0.0, 1.0)) is None
    assert extractor.flush() is None


def test_mean_and_std(tmp_path: Path) -> None:
    """Of the model's metadata, unless the settings give others."""
    path = _model(tmp_path / "m.onnx", [1, 3, 6, 8], mean="0.5, 0.5, 0", std="0.5 0.25 1")
    for given, values in (({}, [1.0, -2.0, 0.2]), ({"mean": (0.0, 0.0, 0.2), "std": (1.0, 1.0, 1.0)}, [1.0, 0.0, 0.0])):
        rows = OnnxExtractor(path, **given).push(_picture(255, 0, 51))
        assert rows is not None
        assert rows.values[0] == pytest.approx(values, abs=1e-6)


def test_pictures_of_another_size_are_scaled(tmp_path: Path) -> None:
    """By area; a model of any size gets a usual one."""
    path = _model(tmp_path / "m.onnx", [1, 3, 4, 4])
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20] = 200
    rows = OnnxExtractor(path).push(Picture(pixels, 0.0))
    assert rows is not None
    assert rows.values[0] == pytest.approx([100 / 255] * 3, abs=1e-5)
    assert OnnxExtractor(_model(path, [1, 3, "h", "w"])).size == (224, 224)


@pytest.mark.parametrize(("first", "sizes"), [("n", [3, 2]), (1, [1, 1, 1, 1, 1])])
def test_pictures_are_answered_together_where_the_model_can(tmp_path: Path, first: Any, sizes: list[int]) -> None:
    """A batch of three and what is left at the flush; one by one where the model takes one."""
    extractor = OnnxExtractor(_model(tmp_path / "m.onnx", [first, 3, 6, 8]), 10.0, batch=3)
    parts = [extractor.push(_picture(51 * i, 0, 0, i / 10)) for i in range(5)]
    found = [rows for rows in (*parts, extractor.flush()) if rows is not None]
    assert [len(rows) for rows in found] == sizes
    joined = Rows.join(found)
    assert joined.values[:, 0] == pytest.approx(np.arange(5) / 5)
    assert joined.times == pytest.approx(np.arange(5) / 10)


def test_numbers_that_are_none_stay_inside(tmp_path: Path) -> None:
    """A row is finite whatever the model answers."""
    rows = OnnxExtractor(_model(tmp_path / "m.onnx", [1, 3, 6, 8], op="Log")).push(_picture(0, 0, 0))
    assert rows is not None
    assert np.isfinite(rows.values).all()


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ([1, 3, 8], {}),
        ([4, 3, 6, 8], {}),
        ([1, 1, 6, 8], {}),
        ([1, 6, 8, 3], {}),
        ([1, 3, 6, 8], {"kind": 11}),
        ([1, 3, 6, 8], {"op": "Add", "inputs": 2}),
    ],
)
def test_a_model_that_takes_something_else(tmp_path: Path, shape: list[Any], how: dict[str, Any]) -> None:
    """Its inputs are named, with what to export instead."""
    path = _model(tmp_path / "m.onnx", shape, **({"op": "Identity"} | how))
    with pytest.raises(Problem, match=r"takes x0 \[.*: export it with one input \(1, 3, H, W\) or \(N, 3, H, W\)"):
        OnnxExtractor(path)


def test_a_model_that_answers_something_else(tmp_path: Path) -> None:
    """A row too wide, or an answer that is no row."""
    with pytest.raises(Problem, match=r"answers \(1, 3, 200, 200\) of float32: expected float \(N, D\), D up to 4096"):
        OnnxExtractor(_model(tmp_path / "m.onnx", [1, 3, 200, 200], op="Identity"))
    with pytest.raises(Problem, match=r"answers \(4,\) of int64: expected float"):
        OnnxExtractor(_model(tmp_path / "m.onnx", [1, 3, 6, 8], op="Shape"))


def test_files_that_are_no_model(tmp_path: Path) -> None:
    """None, of something else, with numbers that are none."""
    path = tmp_path / "m.onnx"
    with pytest.raises(Problem, match="there is no file"):
        OnnxExtractor(path)
    for data in (b"", b"PK\x03\x04", b"x" * 1000):
        path.write_bytes(data)
        with pytest.raises(Problem, match="no ONNX model that can be read here: "):
            OnnxExtractor(path)
    with pytest.raises(Problem, match="its metadata mean 'red' should be three numbers"):
        OnnxExtractor(_model(path, [1, 3, 6, 8], mean="red"))
    with pytest.raises(Problem, match="three numbers above 0"):
        OnnxExtractor(_model(path, [1, 3, 6, 8], std="1 0 1"))


def test_without_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install, and nothing else of extraction needs it."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(Problem, match=r"pip install 'megace2-iot\[onnx\]'"):
        OnnxExtractor(_model(tmp_path / "m.onnx", [1, 3, 6, 8]))
