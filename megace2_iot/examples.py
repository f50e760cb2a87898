"""Many embedded samples as a few flat arrays: how training data goes to a child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from megace2_iot.features import MODALITIES, Modality

Embedded = Mapping[Modality, np.ndarray[Any, Any]]  # Z[0] (T, d) of each modality that a sample has


def pack(samples: Sequence[Embedded]) -> dict[str, Any]:
    """Per modality all steps (sum T, d) behind one another, and lengths (N,); 0 where a sample lacks it."""
    packed: dict[str, Any] = {}
    for modality in MODALITIES:
        present = [sample[modality] for sample in samples if modality in sample]
        if present:
            packed[modality] = np.concatenate(present)
            lengths = [len(sample[modality]) if modality in sample else 0 for sample in samples]
            packed[f"{modality}_lengths"] = np.array(lengths, np.int32)
    return packed


def unpack(packed: Mapping[str, Any]) -> list[dict[Modality, np.ndarray[Any, Any]]]:
    """The samples of `pack`; an empty sequence is a missing modality."""
    known = [modality for modality in MODALITIES if modality in packed]
    count = len(packed[f"{known[0]}_lengths"]) if known else 0
    samples: list[dict[Modality, np.ndarray[Any, Any]]] = [{} for _ in range(count)]
    for modality in known:
        start = 0
        for sample, length in zip(samples, packed[f"{modality}_lengths"], strict=True):
            if length:
                sample[modality] = packed[modality][start : start + length]
            start += int(length)
    return samples
