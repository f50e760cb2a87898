"""Which half a shared label belongs to, decided alike on the device and at the edge."""

from __future__ import annotations

import zlib
from typing import Literal

Half = Literal["fit", "gate"]


def half(group: str, device: str, epoch: int, seq: int) -> Half:
    """`fit` trains the adapter, `gate` judges it; a group (one recording) is never split between them.

    A device keeps what it shared and fell to `gate` out of its own training, so the base has not seen it either.
    """
    key = group or f"{device}/{epoch}/{seq}"
    return "gate" if zlib.crc32(key.encode()) % 2 else "fit"
