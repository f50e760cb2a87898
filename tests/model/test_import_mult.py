"""Checkpoints of the released MulT code give the same answers here, whatever their architecture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mult_reference import State, mult, random_state
from torch import Tensor, nn

from megace2_iot.features import MODALITIES
from megace2_iot.model import checkpoint
from megace2_iot.model.ablation import SingleTarget
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.mult_import import import_mult, read_mult
from megace2_iot.model.mult_names import LETTERS, from_mult
from megace2_iot.model.state import stem_of

Read = Callable[[str], tuple[dict[str, Tensor], dict[str, str]]]
DIMS = {"l": 12, "a": 5, "v": 7}
TIMES = {"l": 8, "a": 13, "v": 10}


def inputs(dims: dict[str, int], seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {m: torch.randn(4, TIMES[m], dim, generator=generator) for m, dim in dims.items()}


def imported(state: State, folder: Path, heads: int, *, causal: bool = True) -> CrossModalTransformer | SingleTarget:
    """Saved by torch, imported, stored as our checkpoint, and read again."""
    torch.save(state, folder / "mult.pt")
    model = import_mult(read_mult(folder / "mult.pt"), heads=heads, causal=causal)
    checkpoint.save(folder / "ours.safetensors", model)
    again = checkpoint.load(folder / "ours.safetensors")
    assert isinstance(again, CrossModalTransformer | SingleTarget)
    return again


def answers(model: CrossModalTransformer | SingleTarget, x: dict[str, Tensor]) -> Tensor:
    features = {m: x[LETTERS[m]] for m in MODALITIES}
    lengths = {m: torch.full((len(values),), values.shape[1]) for m, values in features.items()}
    if isinstance(model, SingleTarget):
        return model(features, lengths)
    return model(model.embed(features, lengths), lengths)


def same(model: CrossModalTransformer | SingleTarget, state: State, x: dict[str, Tensor], **how: int) -> None:
    torch.testing.assert_close(answers(model, x), mult(state, x, **how), atol=2e-5, rtol=2e-5)


def test_the_second_writing_is_the_reference(vectors: Read) -> None:
    """What the tests below compare with equals the released code itself."""
    tensors, about = vectors("mult_full_unaligned")
    state = {name[2:]: tensor for name, tensor in tensors.items() if name.startswith("w.")}
    x = {m: tensors[f"x_{m}"] for m in "lav"}
    torch.testing.assert_close(mult(state, x, heads=int(about["num_heads"])), tensors["y"], atol=2e-5, rtol=2e-5)


def test_the_released_code_s_own_numbers(vectors: Read, tmp_path: Path) -> None:
    """From its state dict to its answer, by way of a file."""
    tensors, _ = vectors("mult_full_unaligned")
    state = {name[2:]: tensor for name, tensor in tensors.items() if name.startswith("w.")}
    model = imported(state, tmp_path, heads=5)
    x = {m: tensors[f"x_{m}"] for m in "lav"}
    torch.testing.assert_close(answers(model, x), tensors["y"], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_any_depth(tmp_path: Path, layers: int) -> None:
    """Memories are never less than three layers deep, and their depth is read from the file."""
    state = random_state(DIMS, width=20, layers=layers)
    model = imported(state, tmp_path, heads=4)
    same(model, state, inputs(DIMS), heads=4)


def test_without_the_mask(tmp_path: Path) -> None:
    """Every step looks at every step, also where lengths differ."""
    state = random_state(DIMS, width=20, layers=2)
    model = imported(state, tmp_path, heads=5, causal=False)
    same(model, state, inputs(DIMS), heads=5, mask=False)
    assert not torch.allclose(answers(model, inputs(DIMS)), mult(state, inputs(DIMS), heads=5), atol=1e-3)


@pytest.mark.parametrize("target", "lav")
@pytest.mark.parametrize("causal", [True, False])
def test_single_targets(tmp_path: Path, target: str, causal: bool) -> None:
    """`lonly`, `aonly` and `vonly`, whose files hold two memories that are never used."""
    state = random_state(DIMS, width=20, layers=2, targets=target, outputs=3)
    model = imported(state, tmp_path, heads=4, causal=causal)
    assert isinstance(model, SingleTarget)
    same(model, state, inputs(DIMS), heads=4, mask=causal)


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("targets", ["lav", "a"])
def test_an_input_as_wide_as_the_model_is_not_projected(tmp_path: Path, projected: bool, targets: str) -> None:
    """The released code owns a projection for it and passes it by; a file may lack it."""
    dims = {"l": 20, "a": 5, "v": 20}
    state = random_state(dims, width=20, layers=2, targets=targets, projected=projected)
    model = imported(state, tmp_path, heads=4)
    x = inputs(dims)
    x["v"][:, 2, 0] = 0.0  # takes its step for padding
    same(model, state, x, heads=4)
    assert not model.stem.get_parameter("text").requires_grad


def test_kernels_that_are_not_padded(tmp_path: Path) -> None:
    """A kernel of 3 leaves two steps less, in a batch and on a device."""
    state = random_state(DIMS, width=20, layers=1, kernel=3)
    model = imported(state, tmp_path, heads=4)
    same(model, state, inputs(DIMS), heads=4)
    assert isinstance(model, CrossModalTransformer)
    x = inputs(DIMS)["a"][:1]
    z = model.embed({"audio": x}, {"audio": torch.tensor([13])})["audio"][0]
    assert z.shape == (11, 20)
    np.testing.assert_allclose(stem_of(model).embed("audio", x[0].numpy()), z.detach(), atol=3e-5)


def test_an_odd_width(tmp_path: Path) -> None:
    """Its last position is zero."""
    state = random_state(DIMS, width=15, layers=1)
    same(imported(state, tmp_path, heads=3), state, inputs(DIMS), heads=3)


def test_only_an_input_as_wide_as_the_model_passes() -> None:
    """A config without a projection for another width is refused, where it is made and where it is read."""
    with pytest.raises(ValueError, match="audio needs a kernel: only features 16 wide pass"):
        replace(preset("nano", {"text": 16, "audio": 5, "vision": 7}), kernels={"text": 0, "audio": 0, "vision": 1})


STEPS = {
    "one layer": {"layers": 1},
    "no mask": {"layers": 2},
    "one target": {"layers": 2, "targets": "v"},
    "an input that passes": {"layers": 1},
    "and is missing": {"layers": 1, "projected": False},
}


@pytest.mark.parametrize("case", STEPS)
def test_one_training_step(tmp_path: Path, case: str) -> None:
    """Loss, norm, every clipped gradient and the answer after Adam; an identity counts for nothing in them."""
    dims = {**DIMS, "l": 20} if "input" in case or "missing" in case else DIMS
    state = random_state(dims, width=20, **STEPS[case])
    mask = case != "no mask"
    model = imported(state, tmp_path, heads=4, causal=mask)
    theirs = {name: nn.Parameter(tensor) for name, tensor in state.items()}
    x, target = inputs(dims), torch.tensor([[1.0], [-2.0], [0.5], [3.0]])
    sides = [
        (list(model.parameters()), lambda: answers(model, x)),
        (list(theirs.values()), lambda: mult(theirs, x, heads=4, mask=mask)),
    ]
    seen = []
    for parameters, answer in sides:
        optimiser = torch.optim.Adam(parameters, lr=1e-3)
        loss = nn.functional.l1_loss(answer(), target)
        loss.backward()
        norm = nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], 0.8)
        optimiser.step()
        seen.append((loss.detach(), norm, answer().detach()))
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-4, atol=2e-5)
    for name, parameter in theirs.items():
        if parameter.grad is not None:
            ours = model.get_parameter(from_mult(name)).grad
            assert ours is not None
            grad = ours.permute(2, 1, 0) if name.startswith("proj_") else ours
            torch.testing.assert_close(grad, parameter.grad, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": s}, lambda s: {"epoch": 3, "model": s}])
def test_a_state_dict_may_be_wrapped(tmp_path: Path, wrap: Callable[[State], object]) -> None:
    """Under the usual keys."""
    state = random_state(DIMS, width=20, layers=1)
    torch.save(wrap(state), tmp_path / "mult.pt")
    same(import_mult(read_mult(tmp_path / "mult.pt"), heads=4), state, inputs(DIMS), heads=4)


def test_a_parallel_model_s_names(tmp_path: Path) -> None:
    """`nn.DataParallel` puts `module.` before every name."""
    state = random_state(DIMS, width=30, layers=1)
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "mult.pt")
    same(import_mult(read_mult(tmp_path / "mult.pt")), state, inputs(DIMS), heads=5)  # 30 wide: 5 heads are known


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run by a file",)


def test_no_code_of_a_file_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole model, which is what MulT's own script saves, is refused with the way out."""
    torch.save(Evil(), tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="pickled module, and loading it would run its code"):
        read_mult(tmp_path / "evil.pt")
    torch.save(nn.Linear(2, 1), tmp_path / "linear.pt")
    with pytest.raises(ValueError, match=r"state_dict\(\), 'state.pt'"):
        read_mult(tmp_path / "linear.pt")
    assert "run by a file" not in capsys.readouterr().out


def test_other_files_are_refused_in_words(tmp_path: Path) -> None:
    """Garbage, something that is no state dict, and some other model's."""
    path = tmp_path / "other.pt"
    path.write_bytes(b"no tensors here")
    with pytest.raises(ValueError, match="not a torch file of weights"):
        read_mult(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="no state dict of tensors"):
        read_mult(path)
    with pytest.raises(ValueError, match="not a MulT model: it has cross-modal encoders"):
        import_mult({"fc.weight": np.zeros((2, 2), np.float32)}, heads=2)


def test_what_does_not_fit_is_named() -> None:
    """A tensor too few, and heads that nobody told."""
    state = {n: t.numpy() for n, t in random_state(DIMS, width=40, layers=1).items() if t.numel() > 1}
    with pytest.raises(ValueError, match=r"give them \(MOSEI 8, others 10\)"):
        import_mult(state)
    del state["proj1.bias"]
    with pytest.raises(ValueError, match=r"head\.expand\.bias"):
        import_mult(state, heads=8)
