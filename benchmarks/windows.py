"""Windows to measure with: 50 steps of 300/74/35 features, as noise, as a slow process, and from real clips."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megace2_iot.codec import encode
from megace2_iot.features import MODALITIES, Modality
from megace2_iot.messages import FeaturePacket, PacketWindow
from megace2_iot.quantize import quantize
from megace2_iot.stem import Stem

STEPS, BOUND = 50, 0.02
DIMS: dict[Modality, int] = {"text": 300, "audio": 74, "vision": 35}
MULT_WIDTH = 40

Array = npt.NDArray[np.float32]
Arrays = dict[Modality, Array]


def noise(seed: int = 0) -> Arrays:
    """White noise: nothing in it repeats, so it is the worst case."""
    rng = np.random.default_rng(seed)
    return {m: rng.standard_normal((STEPS, dim), np.float32) for m, dim in DIMS.items()}


def process(seed: int = 0, memory: float = 0.9) -> Arrays:
    """A process of first order, as sound and faces move."""
    made: Arrays = {}
    for modality, shocks in noise(seed).items():
        values = shocks.copy()
        for step in range(1, STEPS):
            values[step] = memory * values[step - 1] + (1 - memory**2) ** 0.5 * shocks[step]
        made[modality] = values
    return made


def clips() -> list[Arrays]:
    """Windows of 50 real steps from ICT-MMMO (20 words a clip, so two and a half clips); none without the file."""
    path = Path(os.environ.get("MEGACE2_DATA", "")) / "mmmo.npz"
    if not path.is_file():
        return []
    with np.load(path) as table:
        streams = {m: table[m][..., : DIMS[m]].astype(np.float32) for m in MODALITIES}  # vision has one column more
    flat = {m: values.reshape(-1, values.shape[-1]) for m, values in streams.items()}
    count = len(flat["text"]) // STEPS
    return [{m: values[i * STEPS : (i + 1) * STEPS] for m, values in flat.items()} for i in range(count)]


def packet(device: str, seq: int, arrays: Arrays, stem: tuple[str, Stem] | None = None) -> FeaturePacket:
    """One window as a device sends it: features, or Z[0] of a stem."""
    if stem is not None:
        arrays = {m: stem[1].embed(m, values) for m, values in arrays.items()}
    sequences = {m: quantize(values, BOUND).to_fields() for m, values in arrays.items()}
    window = PacketWindow(seq=seq, captured_at=1.7e9, sequences=sequences, quality={"snr": 20.0})
    return FeaturePacket(
        device=device,
        epoch=1,
        sent_at=1.7e9,
        stage="features" if stem is None else "embedded",
        stem=None if stem is None else stem[0],
        windows=(window,),
    )


def payloads(device: str, count: int, stem: tuple[str, Stem] | None = None, kinds: int = 16) -> list[bytes]:
    """`count` packets with seqs from 1, of `kinds` different windows."""
    fields = [packet(device, 0, process(seed), stem).model_dump() for seed in range(kinds)]
    made = []
    for seq in range(1, count + 1):
        message = fields[seq % kinds]
        message["windows"][0]["seq"] = seq
        made.append(encode(message))
    return made
