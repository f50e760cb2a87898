"""CTC as an alignment: the reference's numbers, a path counted by hand, and what it cannot do."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from megace2_iot.model.baselines.alignment import Aligner, pooling
from megace2_iot.model.baselines.ctc import CtcAlignment, ctc_losses, soft_alignment
from megace2_iot.model.baselines.sequences import Sequences

Read = Callable[[str], tuple[dict[str, Tensor], dict[str, str]]]
DIMS = {"text": 6, "audio": 4, "vision": 3}


def test_the_reference_s_numbers(vectors: Read) -> None:
    """Scores, aligned features, the loss of each sample and its gradient, as warp-ctc gives them."""
    tensors, about = vectors("ctc_module")
    words = int(about["out_seq_len"])
    module = CtcAlignment(int(about["in_dim"]), words)
    prefix = "w.pred_output_position_inclu_blank."
    module.lstm.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    x = tensors["x"]
    scores = module(x).detach().requires_grad_()
    torch.testing.assert_close(scores, tensors["logits"], atol=2e-5, rtol=0.0)
    aligned = soft_alignment(scores, words) @ x
    torch.testing.assert_close(aligned, tensors["aligned"], atol=2e-5, rtol=0.0)
    losses = ctc_losses(scores, torch.full((3,), x.shape[1]), torch.full((3,), words))
    torch.testing.assert_close(losses, tensors["ctc_per_sample"], rtol=1e-5, atol=2e-5)
    losses.sum().backward()
    torch.testing.assert_close(losses.sum().detach(), tensors["ctc_sum"], rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(scores.grad, tensors["grad_logits_of_sum"], rtol=1e-4, atol=2e-5)


def test_the_size_of_an_aligner() -> None:
    """That of the reference, for audio and vision of MOSEI to 50 words."""
    assert [sum(p.numel() for p in CtcAlignment(dim, 50).parameters()) for dim in (74, 35)] == [47_124, 39_168]


def test_paths_counted_by_hand() -> None:
    """Two words in three equally likely steps of three labels: five of 27 paths spell them."""
    losses = ctc_losses(torch.zeros(1, 3, 3), torch.tensor([3]), torch.tensor([2]))
    torch.testing.assert_close(losses, torch.tensor([math.log(27 / 5)]))


def test_fewer_steps_than_words_have_no_path() -> None:
    """The loss would be infinite and its gradient NaN: both are zero, and the other samples' are untouched."""
    scores = torch.randn(3, 4, 6, requires_grad=True)
    losses = ctc_losses(scores, torch.tensor([4, 4, 0]), torch.tensor([3, 5, 2]))
    assert (losses > 0).tolist() == [True, False, False]
    losses.sum().backward()
    assert scores.grad is not None
    assert scores.grad[0].abs().sum() > 0
    assert not scores.grad[1:].any()


def test_a_loss_leaves_out_what_lies_beyond_the_true_end() -> None:
    """Padding neither spells words nor gets a gradient."""
    scores = torch.randn(1, 9, 4, requires_grad=True)
    (loss,) = ctc_losses(scores, torch.tensor([5]), torch.tensor([3]))
    (alone,) = ctc_losses(scores[:, :5], torch.tensor([5]), torch.tensor([3]))
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert scores.grad is not None
    assert not scores.grad[:, 5:].any()


@pytest.mark.parametrize(
    ("steps", "words", "expected"),
    [
        (4, 2, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
        (3, 2, [[0.5, 0.5, 0], [0, 0.5, 0.5]]),
        (2, 3, [[1, 0], [0.5, 0.5], [0, 1]]),
        (1, 3, [[1], [1], [1]]),
        (0, 2, [[0], [0]]),
    ],
)
def test_pooling_deals_the_steps_to_the_words(steps: int, words: int, expected: list[list[float]]) -> None:
    """Word j of n takes the steps from j T / n to (j + 1) T / n, whole ones."""
    shares = pooling(torch.tensor([steps]), torch.tensor([words]), max(1, steps), words)
    torch.testing.assert_close(shares[0], torch.tensor(expected, dtype=torch.float32))


def streams(text: list[int], audio: list[int], vision: list[int]) -> dict[str, Sequences]:
    torch.manual_seed(0)
    lengths = {"text": text, "audio": audio, "vision": vision}
    made = {m: Sequences(torch.randn(len(n), max(1, *n), DIMS[m]), torch.tensor(n)) for m, n in lengths.items()}
    return {m: Sequences(torch.where(s.valid[..., None], s.values, 0.0), s.lengths) for m, s in made.items()}


def test_pooling_stands_in_where_ctc_is_undefined() -> None:
    """A stream shorter than its words, a text longer than the aligner knows, and no text at all."""
    batch = streams(text=[3, 3, 6, 0], audio=[8, 2, 9, 5], vision=[7, 7, 7, 7])
    learned, pooled = Aligner(DIMS, 4, "ctc")(batch), Aligner(DIMS, 4, "pool")(batch)
    same = [torch.allclose(a, b) for a, b in zip(learned.values["audio"], pooled.values["audio"], strict=True)]
    assert same == [False, True, True, True]
    assert learned.lengths.tolist() == [3, 3, 4, 4]
    assert learned.loss > 0
    assert pooled.loss == 0


def test_the_text_is_kept_as_it_is() -> None:
    """Text sets the time: its steps are the words, cut where there are too many."""
    batch = streams(text=[3, 6], audio=[8, 2], vision=[7, 7])
    aligned = Aligner(DIMS, 4, "pool")(batch)
    torch.testing.assert_close(aligned.values["text"], batch["text"].values[:, :4])
    with pytest.raises(ValueError, match="by ctc or pool"):
        Aligner(DIMS, 4, "guess")


def test_an_alignment_can_be_learned() -> None:
    """On a stream that says its word at each step, the loss falls and the shares find the words."""
    torch.manual_seed(0)
    word = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    x = torch.nn.functional.one_hot(word, 4).float()[None]
    batch = {"text": Sequences(torch.randn(1, 3, 6), torch.tensor([3])), "audio": Sequences(x, torch.tensor([9]))}
    aligner = Aligner({"text": 6, "audio": 4}, 3, "ctc")
    optimiser = torch.optim.Adam(aligner.parameters(), 0.05)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = aligner(batch).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]  # never 0: a score is a state of the LSTM, between -1 and 1
    aligned = aligner(batch).values["audio"][0]
    assert aligned.argmax(dim=1).tolist() == [0, 1, 2]
