"""`megace2 import` and `megace2 export` as a user meets them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from mult_reference import random_state
from tiers import command

from megace2_iot.cli import export, import_
from megace2_iot.features import Modality
from megace2_iot.model.checkpoint import load, save
from megace2_iot.model.methods import make
from megace2_iot.problems import Problem

DIMS: dict[Modality, int] = {"text": 12, "audio": 5, "vision": 7}
LETTERS = {"l": 12, "a": 5, "v": 7}


async def test_a_checkpoint_of_mult_is_imported(tmp_path: Path) -> None:
    """One command, one line that says what it was, and a checkpoint that loads."""
    torch.save(random_state(LETTERS, width=20, layers=2), tmp_path / "mult.pt")
    out = tmp_path / "ours.safetensors"
    status, printed = await command("import", "mult", str(tmp_path / "mult.pt"), "--heads", "4", "--out", str(out))
    assert status == 0, printed
    assert "the whole model, 268," in printed
    assert "20 wide, 4 heads, inputs text 12, audio 5, vision 7" in printed
    assert load(out).config.dims == DIMS


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["import", "mult", "nowhere.pt"], "cannot import nowhere.pt"),
        (["import", "mult", "module.pt"], "holds a pickled module"),
        (["import", "mult", "state.pt"], "a file does not tell the heads of a model 20 wide"),
        (["import", "mult", "state.pt", "--heads", "3"], "cannot be split into 3 heads"),
        (["export", "onnx", "state.pt"], "is not a safetensors file"),
        (["export", "onnx", "nowhere.safetensors"], "cannot export nowhere.safetensors"),
    ],
)
async def test_a_mistake_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    """What is wrong and what to do, without a traceback."""
    torch.save(torch.nn.Linear(2, 1), tmp_path / "module.pt")
    torch.save(random_state(LETTERS, width=20, layers=1), tmp_path / "state.pt")
    monkeypatch.chdir(tmp_path)
    status, printed = await command(*arguments)
    assert status == 1
    assert text in printed
    assert len(printed.strip().splitlines()) == 1


def test_what_is_not_mega_ce2_is_not_exported(tmp_path: Path) -> None:
    """A baseline is refused by its name."""
    save(tmp_path / "model.safetensors", make("raven", DIMS, seed=0))
    with pytest.raises(Problem, match="is raven: only Mega-CE2 itself"):
        export.onnx(tmp_path / "model.safetensors", tmp_path / "model.onnx")


def test_an_export_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named, where it is not installed."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    torch.save(random_state(LETTERS, width=20, layers=1), tmp_path / "mult.pt")
    import_.mult(tmp_path / "mult.pt", tmp_path / "model.safetensors", heads=4)
    with pytest.raises(Problem, match=r"needs onnxscript: pip install 'megace2-iot\[torch,onnx\]'"):
        export.onnx(tmp_path / "model.safetensors", tmp_path / "model.onnx")
