"""From rows of padded feature blocks, as research files hold them, to samples of true lengths on one clock.

Padding is steps of zeros before or after; it is cut off. Blocks of one padded length are aligned step by step and are
cut together. Audio and vision are standardised by the steps of the train rows and clipped: raw ones reach 255, and
one such channel would drown all others. Text stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from megace2_iot.datasets.finite import Repairs
from megace2_iot.datasets.sample import Dataset, Sample, Scaling, Split
from megace2_iot.datasets.scaling import LIMIT, fitted, scaled
from megace2_iot.features import MODALITIES, Features, Modality

Array = npt.NDArray[np.float32]
Block = npt.NDArray[np.generic]

SCALED: tuple[Modality, ...] = ("audio", "vision")
WORD_RATE = 2.5  # Hz, of speech, where no times are known
PACE = 5.0  # s from one clip of a video to the next, where no times are known


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One utterance as its file holds it; without `seconds`, it lasts as long as its words do at 2.5 a second."""

    id: str
    group: str
    split: Split
    start: float
    score: float | None
    blocks: Mapping[Modality, Block]  # (T, D), padded or not
    lengths: Mapping[Modality, int] = field(default_factory=dict)  # where the file says what is padding
    seconds: float | None = None


def dataset_of(name: str, rows: Iterable[Row], notes: Sequence[str] = ()) -> Dataset:
    """Samples of `rows`, groups together and each in order of time. Raises ValueError where there are none."""
    repairs, kept = Repairs(), []
    for row in rows:
        cut = trimmed(row.blocks, row.lengths)
        cleaned = {m: repairs.clean(m, block) for m, block in cut.items()}
        row = replace(row, blocks={})  # its own are not needed beside the cleaned copies
        kept.append((row, {m: x for m, x in cleaned.items() if x is not None}))
    dims = _dims([blocks for _, blocks in kept])
    if not dims:
        raise ValueError(f"{name} holds no features")
    without = sum(not blocks for _, blocks in kept)
    kept = [(row, blocks) for row, blocks in kept if blocks]
    told = [*notes, *repairs.notes(), *([f"{without:,} samples without any features were left out"] if without else [])]
    scaling: dict[Modality, Scaling] = {}
    for modality in SCALED:
        blocks = [(row.split, blocks[modality]) for row, blocks in kept if modality in blocks]
        if blocks:
            scaling[modality] = _scale(blocks)
            by = "the train rows" if any(split == "train" for split, _ in blocks) else "all rows, for none are train"
            told.append(f"{modality} is standardised by {by}, and clipped at {LIMIT:g} deviations")
    samples = in_order([_sample(row, blocks) for row, blocks in kept])
    return Dataset(name, dims, samples, tuple(told), dict(repairs.values), scaling)


def in_order(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Groups together, in the order in which they begin, each in order of time."""
    place = {group: i for i, group in enumerate(dict.fromkeys(sample.group for sample in samples))}
    return tuple(sorted(samples, key=lambda sample: (place[sample.group], sample.start)))


def trimmed(blocks: Mapping[Modality, Block], lengths: Mapping[Modality, int] | None = None) -> dict[Modality, Block]:
    """Blocks without their padding; one that is all zeros is left out, for it was made of nothing."""
    filled = {m: np.any(block != 0, axis=1) for m, block in blocks.items()}
    for modality, length in (lengths or {}).items():
        filled[modality] = np.arange(len(blocks[modality])) < length
    if len(blocks) > 1 and len({len(block) for block in blocks.values()}) == 1:
        together = np.any(list(filled.values()), axis=0)
        filled = dict.fromkeys(blocks, together)
    cut: dict[Modality, Block] = {}
    for modality, block in blocks.items():
        steps = np.flatnonzero(filled[modality])
        if steps.size and block.any():
            cut[modality] = block[steps[0] : steps[-1] + 1]
    return cut


def blocks_of(part: Mapping[str, Any], count: int, where: str) -> dict[Modality, npt.NDArray[Any]]:
    """The padded (N, T, D) blocks of `count` rows, or ValueError saying what is wrong with them."""
    blocks = {m: np.asarray(part[m]) for m in MODALITIES if m in part}
    for modality, block in blocks.items():
        if block.ndim != 3 or len(block) != count or block.dtype.kind not in "fiu":
            found = f"{block.shape} of {block.dtype}"
            raise ValueError(f"{where}: {modality} is {found}, expected ({count}, T, D) of numbers")
    return blocks


def _dims(all_blocks: Sequence[Mapping[Modality, Array]]) -> dict[Modality, int]:
    """The one width of each modality."""
    widths = {m: {blocks[m].shape[1] for blocks in all_blocks if m in blocks} for m in MODALITIES}
    for modality, found in widths.items():
        if len(found) > 1:
            raise ValueError(f"{modality} is {', '.join(map(str, sorted(found)))} wide, and must be of one width")
    return {m: found.pop() for m, found in widths.items() if found}


def _scale(blocks: Sequence[tuple[Split, Array]]) -> Scaling:
    """Standardise blocks where they lie, by the train rows where there are any."""
    by = fitted([block for split, block in blocks if split == "train"] or [block for _, block in blocks])
    for _, block in blocks:
        block[:] = scaled(block, by)
    return by


def _sample(row: Row, blocks: Mapping[Modality, Array]) -> Sample:
    words = len(blocks["text"]) if "text" in blocks else max(len(block) for block in blocks.values())
    seconds = row.seconds if row.seconds else words / WORD_RATE
    features = {m: Features(blocks[m], len(blocks[m]) / seconds, row.start) for m in MODALITIES if m in blocks}
    return Sample(row.id, row.group, row.split, row.start, row.score, features)
