"""MCTN: it recurs over time, translates in training, and answers from text alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.baselines.mctn import Decoder, Mctn, MctnConfig
from megace2_iot.model.baselines.sequences import Sequences

DIMS: dict[Modality, int] = {"text": 8, "audio": 5, "vision": 4}
CONFIG = MctnConfig(dims=DIMS, hidden=6)
Batch = tuple[dict[Modality, Tensor], dict[Modality, Tensor]]


def batch(size: int = 3, steps: int = 7) -> Batch:
    generator = torch.Generator().manual_seed(0)
    values = {m: torch.randn(size, steps, DIMS[m], generator=generator) for m in MODALITIES}
    return values, dict.fromkeys(MODALITIES, torch.full((size,), steps))


def mctn(config: MctnConfig = CONFIG) -> Mctn:
    torch.manual_seed(1)
    return Mctn(config)


def test_it_recurs_over_time_and_not_over_the_batch() -> None:
    """MMSA's feeds (batch, time) into LSTMs that want (time, batch): there a mate changes the answer, here a word."""
    model = mctn().eval()
    (values, lengths), text = batch(), batch()[0]["text"]
    mates = text.clone()
    mates[1:] += 1.0
    words = text.clone()
    words[0] = words[0].flip(0)
    plain = model(values, lengths)[0]
    torch.testing.assert_close(model({**values, "text": mates}, lengths)[0], plain, atol=1e-6, rtol=0.0)
    assert (model({**values, "text": words}, lengths)[0] - plain).abs() > 1e-4


def test_an_answer_needs_nothing_but_text() -> None:
    """The other modalities are absent, and the answer is the same."""
    model = mctn().eval()
    values, lengths = batch()
    assert torch.equal(model({"text": values["text"]}, {"text": lengths["text"]}), model(values, lengths))


def test_evaluation_looks_at_no_label_and_training_at_all_modalities() -> None:
    """MMSA's needs the label at test time; here the extra loss follows from the features, and no answer needs it."""
    model = mctn(replace(CONFIG, align="pool"))
    values, lengths = batch()
    plain = model.training_step(values, lengths)[1]
    for modality in ("audio", "vision"):
        moved = {**values, modality: values[modality] + 0.5}
        assert model.training_step(moved, lengths)[1] != plain


def test_scores_are_the_same_in_training_and_in_use() -> None:
    """Translations ride beside the score and are no input of it."""
    model = mctn()
    torch.testing.assert_close(model.training_step(*batch())[0], model.eval()(*batch()))


def test_every_parameter_learns_from_the_translations() -> None:
    """Both translators; the aligner from its own loss only, never from making its target easy."""
    model = mctn(replace(CONFIG, ctc_weight=0.0))
    scores, extra = model.training_step(*batch())
    (scores.sum() + extra).backward()
    without = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert without == {"aligner"}


def test_a_translation_is_learned() -> None:
    """The exercise gets easier with practice."""
    model = mctn(replace(CONFIG, align="pool", head_decay=0.0))
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        extra = model.training_step(*batch())[1]
        extra.backward()
        optimiser.step()
        losses.append(extra.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_cell_may_couple_its_gates() -> None:
    """As in the authors' code, where one slice drives both; what is drawn for the forget gate then has no effect."""
    torch.manual_seed(0)
    encoded = Sequences(torch.randn(2, 5, 6), torch.tensor([5, 5]))
    for coupled in (True, False):
        torch.manual_seed(2)
        decoder = Decoder(6, 8, coupled=coupled)
        before = decoder(encoded)
        with torch.no_grad():
            decoder.drive.bias[6:12] += 1.0
        assert torch.equal(decoder(encoded), before) == coupled


def test_looks_differ_from_step_to_step() -> None:
    """A state that counts: with one scored linearly every look would be the same."""
    torch.manual_seed(0)
    decoder = Decoder(6, 8, coupled=False)
    encoded = torch.randn(1, 5, 6)
    first = decoder.look(torch.tanh(decoder.of_step(encoded))).softmax(dim=1)
    later = decoder.look(torch.tanh(decoder.of_step(encoded) + decoder.of_state(torch.ones(1, 1, 6)))).softmax(dim=1)
    assert (first - later).abs().max() > 1e-3
