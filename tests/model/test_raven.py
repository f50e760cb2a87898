"""RAVEN: the shift by its formulas, and gradients that reach what is heard and seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.baselines.alignment import segments
from megace2_iot.model.baselines.raven import Raven, RavenConfig
from megace2_iot.model.baselines.sequences import sequences_of

DIMS: dict[Modality, int] = {"text": 8, "audio": 5, "vision": 4}
CONFIG = RavenConfig(dims=DIMS, nonverbal=6, hidden=7, align="pool")


def batch(steps: int = 6) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    values = {m: torch.randn(3, steps, DIMS[m], generator=generator) for m in MODALITIES}
    lengths = {m: torch.full((3,), steps) for m in MODALITIES}
    return values, lengths


def raven(config: RavenConfig = CONFIG) -> Raven:
    torch.manual_seed(1)
    return Raven(config)


def test_the_size_of_the_authors_model() -> None:
    """1,194,953 with inputs 300/74/47, of which 100 are a second norm that their code makes and never uses."""
    config = RavenConfig(dims={"text": 300, "audio": 74, "vision": 47}, align="pool")
    assert sum(p.numel() for p in Raven(config).parameters()) == 1_194_853


@pytest.mark.parametrize("shift", ["paper", "code"])
def test_what_is_heard_and_seen_is_learned_from(shift: str) -> None:
    """The released code detaches it: every nonverbal parameter and input gets a gradient here."""
    model = raven(replace(CONFIG, shift=shift)).train()
    values, lengths = batch()
    lengths["text"] = torch.full((3,), 3)  # two frames a word
    for x in values.values():
        x.requires_grad_()
    scores, _ = model.training_step(values, lengths)
    scores.sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in values.values())
    untouched = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert untouched == []


@pytest.mark.parametrize("shift", ["paper", "code"])
def test_the_shift_by_its_formula(shift: str) -> None:
    """One word, spelt out."""
    model = raven(replace(CONFIG, shift=shift)).eval()
    values, lengths = batch()
    streams = sequences_of(values, lengths, DIMS)
    aligned = model.aligner(streams)
    shifts = model.shift(streams, aligned)
    e, heard, seen = (aligned.values[m][0, 2] for m in MODALITIES)
    weighed = []
    for part, x in ((model.listen, heard / (1 + 1e-5) ** 0.5), (model.watch, seen)):  # a new norm only divides by this
        _, (h, _) = part.reader(part.project(x)[None, None])
        weighed.append(torch.sigmoid(part.gate(torch.cat([h[0, 0], e]))) * h[0, 0])
    direction = model.direction(torch.cat(weighed))
    length = direction.norm()
    scale = 0.2 * e.norm() / length if shift == "paper" else 0.2 * e.norm() / length.clamp(min=1.0)
    expected = direction * (scale.clamp(max=1.0) if shift == "paper" else scale)
    torch.testing.assert_close(shifts[0, 2], expected, atol=1e-6, rtol=1e-5)


def test_a_shift_is_never_longer_than_beta_allows() -> None:
    """However loud the voice is, the word keeps its direction."""
    model = raven().eval()
    values, lengths = batch()
    values["audio"] *= 1e3
    with torch.no_grad():
        model.direction.weight *= 1e3
    streams = sequences_of(values, lengths, DIMS)
    aligned = model.aligner(streams)
    assert (model.shift(streams, aligned).norm(dim=-1) <= 0.2 * aligned.values["text"].norm(dim=-1) + 1e-6).all()


def test_a_word_is_read_with_its_own_frames() -> None:
    """The last of two words hears the second half of the voice and not the first; silence beyond the end is unheard."""
    model = raven().eval()
    values, lengths = batch()
    lengths["text"] = torch.full((3,), 2)
    streams = sequences_of(values, lengths, DIMS)
    aligned = model.aligner(streams)
    frames, counts = segments(streams["audio"], aligned.words, 2, frames=20)
    torch.testing.assert_close(frames[:, 1], values["audio"][:, 3:])
    assert counts.tolist() == [[3, 3]] * 3
    few, counts = segments(streams["audio"], aligned.words, 2, frames=2)
    torch.testing.assert_close(few[:, 1], values["audio"][:, 3:5])
    assert counts.tolist() == [[2, 2]] * 3


def test_by_ctc_a_word_has_one_vector() -> None:
    """The gradient reaches what makes it, alignment included, though an LSTM of one step needs no recurrence."""
    model = raven(replace(CONFIG, align="ctc")).train()
    scores, extra = model.training_step(*batch())
    assert extra > 0
    scores.sum().backward()
    untouched = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert untouched == {"listen.reader.weight_hh_l0", "watch.reader.weight_hh_l0"}


def test_a_missing_voice_shifts_nothing_of_its_own() -> None:
    """Its state is zero, not what its LSTM makes of silence."""
    model = raven().eval()
    values, lengths = batch()
    lengths["audio"] = torch.tensor([6, 0, 6])
    one = model(values, lengths)
    with torch.no_grad():
        model.listen.reader.bias_ih_l0 += 1.0
    assert torch.equal(model(values, lengths)[1], one[1])
    assert not torch.equal(model(values, lengths)[0], one[0])
