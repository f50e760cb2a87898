"""EF-LSTM and LF-LSTM: MMSA's numbers, and the traps of their public code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from megace2_iot.features import MODALITIES
from megace2_iot.model.baselines.ef_lstm import EfLstm, EfLstmConfig
from megace2_iot.model.baselines.lf_lstm import LfLstm, LfLstmConfig
from megace2_iot.model.baselines.sequences import Sequences, last_state
from megace2_iot.model.baselines.time_norm import TimeNorm

Read = Callable[[str], tuple[dict[str, Tensor], dict[str, str]]]


def test_mmsa_s_own_numbers(vectors: Read) -> None:
    """Its tensors load under its names, and give its answers."""
    tensors, about = vectors("ef_lstm_mmsa")
    features = {m: tensors[f"x_{letter}"] for m, letter in zip(MODALITIES, "lav", strict=True)}
    config = EfLstmConfig(
        dims={m: x.shape[-1] for m, x in features.items()},
        words=int(about["seq_len"]),
        hidden=int(about["hidden"]),
        layers=int(about["layers"]),
        align="pool",
    )
    model = EfLstm(config).eval()
    state = {n.removeprefix("w."): t for n, t in tensors.items() if n.startswith("w.")}
    del state["norm.num_batches_tracked"]
    model.load_state_dict(state)
    lengths = {m: torch.full((4,), config.words) for m in features}
    torch.testing.assert_close(model(features, lengths), tensors["y"], atol=2e-5, rtol=0.0)


def test_the_size_of_mmsa_s_model() -> None:
    """On MOSI with BERT's 768 text features, without an aligner of ours."""
    config = EfLstmConfig(dims={"text": 768, "audio": 5, "vision": 20}, align="pool")
    assert sum(p.numel() for p in EfLstm(config).parameters()) == 885_605


def test_a_batch_of_one_keeps_its_axis() -> None:
    """MMSA's `.squeeze()` drops the batch axis there."""
    model = EfLstm(EfLstmConfig(dims={"text": 4, "audio": 3, "vision": 2}, outputs=2)).eval()
    assert model({"text": torch.randn(1, 5, 4)}, {"text": torch.tensor([5])}).shape == (1, 2)


def test_the_norm_is_torch_s_where_nothing_is_padded() -> None:
    """In training and in evaluation, running statistics included."""
    torch.manual_seed(0)
    ours, theirs = TimeNorm(6), nn.BatchNorm1d(6)
    valid = torch.ones(3, 6, dtype=torch.bool)
    for _ in range(3):
        x = torch.randn(3, 6, 5) * 2 + 1
        torch.testing.assert_close(ours(x, valid), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x, valid), theirs.eval()(x))


def test_the_norm_never_counts_padding() -> None:
    """What padding holds changes neither output nor statistics; a step that nobody reaches keeps its own."""
    torch.manual_seed(0)
    valid = torch.tensor([[True, True, False], [True, False, False]])
    x = torch.randn(2, 3, 4)
    one, two = TimeNorm(5), TimeNorm(5)
    torch.testing.assert_close(one(x, valid), two(torch.where(valid[..., None], x, 1e3), valid))
    torch.testing.assert_close(one.running_var, two.running_var)
    assert one.running_var[2:].tolist() == [1.0, 1.0, 1.0]


def test_the_way_back_begins_at_the_true_end() -> None:
    """A bidirectional LSTM gives padded sequences the states that they have alone, and nothing to empty ones."""
    torch.manual_seed(0)
    lstm = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
    x = torch.randn(3, 7, 4)
    together = last_state(lstm, Sequences(x, torch.tensor([7, 2, 0])))
    torch.testing.assert_close(together[1:2], last_state(lstm, Sequences(x[1:2, :2], torch.tensor([2]))))
    _, (h, _) = lstm(x[:1])
    torch.testing.assert_close(together[0], torch.cat([h[0, 0], h[1, 0]]))
    assert not together[2].any()


def test_late_fusion_needs_no_alignment() -> None:
    """Each modality keeps its own time, so that each step of each is heard."""
    model = LfLstm(LfLstmConfig(dims={"text": 4, "audio": 3, "vision": 2})).eval()
    x = {"text": torch.randn(1, 3, 4), "audio": torch.randn(1, 40, 3).requires_grad_(), "vision": torch.randn(1, 5, 2)}
    model(x, {m: torch.tensor([v.shape[1]]) for m, v in x.items()}).sum().backward()
    assert x["audio"].grad is not None
    assert x["audio"].grad.abs().sum(dim=-1).min() > 0
