"""What every method of the tables promises to the one loop, whatever it is made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from megace2_iot.features import Modality
from megace2_iot.model.method import Method
from megace2_iot.model.methods import ALL, make, recipe

DIMS: dict[Modality, int] = {"text": 24, "audio": 12, "vision": 10}
LENGTHS: dict[Modality, list[int]] = {
    "text": [5, 9, 1, 0, 7, 6],
    "audio": [20, 3, 11, 4, 0, 7],
    "vision": [8, 8, 2, 6, 5, 0],
}
Batch = tuple[dict[Modality, Tensor], dict[Modality, Tensor]]

each_method = pytest.mark.parametrize("name", ALL)


def batch(lengths: dict[Modality, list[int]] = LENGTHS, seed: int = 0) -> Batch:
    """Random features of these lengths with garbage in the padding, and the lengths."""
    generator = torch.Generator().manual_seed(seed)
    values = {m: torch.randn(len(n), max(n), DIMS[m], generator=generator) for m, n in lengths.items()}
    for m, n in lengths.items():
        for row, steps in zip(values[m], n, strict=True):
            row[steps:] = 1e4
    return values, {m: torch.tensor(n) for m, n in lengths.items()}


def sample(of: Batch, i: int) -> Batch:
    """Sample i without its batch mates and without padding, missing modalities left out."""
    values, lengths = of
    present = [m for m in values if lengths[m][i] > 0]
    return {m: values[m][i : i + 1, : lengths[m][i]] for m in present}, {m: lengths[m][i : i + 1] for m in present}


def method(name: str) -> Method:
    return make(name, DIMS, seed=1)


@each_method
def test_an_answer_does_not_depend_on_batch_mates(name: str) -> None:
    """Alone and without padding every sample gets the answer that it gets in company, also where one is missing."""
    model = method(name).eval()
    with torch.inference_mode():
        together = model(*batch())
        assert together.shape == (6, 1)
        for i in range(6):
            torch.testing.assert_close(model(*sample(batch(), i))[0], together[i], atol=1e-5, rtol=0.0)


@each_method
def test_the_order_of_a_batch_is_the_order_of_its_answers(name: str) -> None:
    """Nothing recurs over the batch axis."""
    model = method(name).eval()
    values, lengths = batch()
    order = torch.tensor([4, 2, 0, 5, 3, 1])
    shuffled = {m: x[order] for m, x in values.items()}, {m: n[order] for m, n in lengths.items()}
    torch.testing.assert_close(model(*shuffled), model(values, lengths)[order], atol=1e-5, rtol=0.0)


@each_method
def test_a_batch_of_one_trains(name: str) -> None:
    """Scores keep their batch axis, the extra loss is a finite scalar, and a gradient comes back."""
    model = method(name).train()
    scores, extra = model.training_step(*sample(batch(), 0))
    assert scores.shape == (1, 1)
    assert extra.shape == ()
    (scores.square().sum() + extra).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)


@each_method
def test_missing_modalities_leave_finite_gradients(name: str) -> None:
    """A batch with empty sequences and with streams shorter than their words trains."""
    model = method(name).train()
    scores, extra = model.training_step(*batch())
    (scores.square().sum() + extra).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@each_method
def test_it_learns_a_batch_by_heart(name: str) -> None:
    """Twenty steps on one batch bring its loss down."""
    model = method(name).train()
    everything: dict[Modality, list[int]] = {"text": [5, 9, 4], "audio": [20, 10, 11], "vision": [8, 9, 6]}
    truth = torch.tensor([2.0, -1.0, 0.5])
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(20):
        torch.manual_seed(0)  # the same dropout, so that the losses compare
        scores, extra = model.training_step(*batch(everything))
        loss = (scores[:, 0] - truth).square().mean()
        optimiser.zero_grad()
        (loss + extra).backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@each_method
def test_a_seed_fixes_the_weights_and_leaves_torch_alone(name: str) -> None:
    """Two runs with one seed begin from one model."""
    before = torch.random.get_rng_state()
    one, two = make(name, DIMS, 5), make(name, dict(reversed(DIMS.items())), 5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert recipe(name).epochs > 0


@each_method
def test_nothing_at_all_is_refused(name: str) -> None:
    """An empty batch is the caller's mistake, not an answer."""
    model = method(name)
    with pytest.raises(ValueError, match="at least one modality"):
        model({}, {})
    with pytest.raises(ValueError, match="no lengths for text"):
        model(batch()[0], {})


def test_an_unknown_method_is_refused() -> None:
    """The names are told."""
    with pytest.raises(ValueError, match="no method 'mulan': choose one of ef_lstm, lf_lstm"):
        make("mulan", DIMS, 0)
    with pytest.raises(ValueError, match="no method 'mulan'"):
        recipe("mulan")
