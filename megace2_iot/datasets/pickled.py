"""What the pickles of MulT and MMSA have in common: a dictionary of splits, and ids that Python 2 wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megace2_iot.datasets.sample import SPLITS, Split


def parts_of(data: object) -> dict[Split, Mapping[str, Any]]:
    """The splits of a dictionary of splits; empty for anything else."""
    if not isinstance(data, Mapping):
        return {}
    return {split: data[split] for split in SPLITS if isinstance(data.get(split), Mapping)}


def text_of(value: object) -> str:
    """An id as text; Python 2 wrote bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
