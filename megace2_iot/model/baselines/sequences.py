"""Right-padded sequences with true lengths, and LSTMs over them that never see the padding.

Letters: B batch, T time, D width of the features, H width of the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from megace2_iot.features import Modality
from megace2_iot.model.method import Batch


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """`values` (B, T, D), zero beyond each true length, and `lengths` (B,) on the same device."""

    values: Tensor
    lengths: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, T): true at each valid step."""
        return valid_steps(self.lengths, self.values.shape[1])


def valid_steps(lengths: Tensor, time: int) -> Tensor:
    """(B, T): true at the first `lengths` (B,) of T steps."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def sequences_of(features: Batch, lengths: Batch, dims: Mapping[Modality, int]) -> dict[Modality, Sequences]:
    """Every modality of `dims`; one that is absent becomes one empty step a sample.

    Raises ValueError where nothing is present, or a modality has no lengths or another width.
    """
    known = {m: features[m] for m in dims if m in features and features[m].shape[1] > 0}
    if not known:
        raise ValueError("a batch needs at least one modality with at least one step")
    if lacking := [m for m in known if m not in lengths]:
        raise ValueError(f"no lengths for {', '.join(lacking)}")
    if wrong := [m for m, x in known.items() if x.dim() != 3 or x.shape[-1] != dims[m]]:
        raise ValueError(f"{wrong[0]} features are {tuple(known[wrong[0]].shape)}, expected (B, T, {dims[wrong[0]]})")
    some = next(iter(known.values()))
    made: dict[Modality, Sequences] = {}
    for modality, dim in dims.items():
        if modality not in known:
            none = torch.zeros(len(some), dtype=torch.long, device=some.device)
            made[modality] = Sequences(some.new_zeros(len(some), 1, dim), none)
            continue
        steps = lengths[modality].to(some.device)
        valid = valid_steps(steps, known[modality].shape[1])[..., None]
        made[modality] = Sequences(torch.where(valid, known[modality], 0.0), steps)
    return made


def states(lstm: nn.LSTM, sequences: Sequences) -> Tensor:
    """(B, T, H) of a batch-first LSTM at every valid step, zeros beyond; H counts both directions."""
    time = sequences.values.shape[1]
    if lstm.bidirectional:  # its way back must begin at the true end
        some = sequences.lengths.clamp(min=1).cpu()
        packed = pack_padded_sequence(sequences.values, some, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=time)
    else:
        out, _ = lstm(sequences.values)
    return torch.where(sequences.valid[..., None], out, 0.0)


def last_state(lstm: nn.LSTM, sequences: Sequences) -> Tensor:
    """(B, H) at the true end; of two directions the second ends at the first step. Zeros where the length is 0."""
    out = states(lstm, sequences)
    index = (sequences.lengths - 1).clamp(min=0)
    last = out[torch.arange(len(out), device=out.device), index]
    if not lstm.bidirectional:
        return last
    return torch.cat([last[:, : lstm.hidden_size], out[:, 0, lstm.hidden_size :]], dim=-1)
