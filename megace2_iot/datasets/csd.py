"""A folder of the CMU Multimodal SDK's exports: one .csd (HDF5) for each computational sequence, and their labels.

    <name>/data/<video>/features (T, D) and intervals (T, 2) in s, beside <name>/metadata

The one whose name has "label" gives a sample for each of its intervals, with the first column as the score. Of the
others each modality takes the first that is there; their steps belong to the interval in which their middle lies.
Exports that the SDK aligned name their segments video[3] and are taken whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megace2_iot.datasets.finite import score_of
from megace2_iot.datasets.sample import Dataset
from megace2_iot.datasets.sequences import Row, dataset_of
from megace2_iot.datasets.splits import by_speaker
from megace2_iot.features import MODALITIES, Modality

MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_ARRAY = 1 << 30  # bytes of one video's features
LABELS = "label"
NAMES: Mapping[Modality, tuple[str, ...]] = {  # parts of the published names, the first that is there is taken
    "text": ("glove", "wordvectors"),
    "audio": ("covarep", "opensmile"),
    "vision": ("facet", "openface"),
}
Steps = tuple[npt.NDArray[Any], npt.NDArray[np.float64]]  # features (T, D), intervals (T, 2)


def load_csd(folder: Path) -> Dataset:
    """Samples of the exports in `folder`; a group is a video. Raises ValueError where they are not what is above."""
    h5py = _h5py()
    with ExitStack() as stack:
        sequences: dict[str, Any] = {}
        for path in sorted(folder.glob("*.csd")):
            try:
                file = stack.enter_context(h5py.File(path, "r"))
                root = next(iter(file))
                sequences[f"{path.stem} {root}".lower()] = file[root]["data"]
            except (OSError, KeyError, StopIteration) as error:
                raise ValueError(f"{path} cannot be read as a computational sequence: {error}") from None
        labels, chosen, notes = _roles(sequences, folder)
        try:
            return by_speaker(dataset_of(folder.name, _rows(labels, chosen), notes), 0)
        except (OSError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{folder} holds a computational sequence that cannot be read: {error}") from None


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise ValueError(".csd files need h5py: pip install 'megace2-iot[data]'") from None
    return h5py


def _roles(sequences: Mapping[str, Any], folder: Path) -> tuple[Any, dict[Modality, Any], list[str]]:
    """The labels, the sequence of each modality, and what was left out."""
    labels = [name for name in sequences if LABELS in name]
    chosen: dict[Modality, str] = {}
    for modality in MODALITIES:
        matching = [name for part in NAMES[modality] for name in sequences if part in re.sub(r"[\s_]", "", name)]
        if matching:
            chosen[modality] = matching[0]
    if len(labels) != 1 or not chosen:
        raise ValueError(
            f"{folder} holds {', '.join(sequences)}: needed are one sequence of labels and at least one of "
            f"{', '.join(part for parts in NAMES.values() for part in parts)}"
        )
    notes = [f"{modality} is {name.split(' ')[0]}" for modality, name in chosen.items()]
    left = sorted(set(sequences) - {labels[0], *chosen.values()})
    notes += [f"left out: {', '.join(name.split(' ')[0] for name in left)}"] if left else []
    return sequences[labels[0]], {m: sequences[name] for m, name in chosen.items()}, notes


def _rows(labels: Any, sequences: Mapping[Modality, Any]) -> Iterator[Row]:
    for segment in labels:
        scores, times = _steps(labels[segment])
        streams = {m: _steps(data[segment]) for m, data in sequences.items() if segment in data}
        aligned = re.fullmatch(r"(.+)\[(\d+)\]", segment)
        for i, (start, end) in enumerate(times.tolist()):
            whole = aligned is not None and len(times) == 1
            yield Row(
                id=f"{aligned[1]}-{aligned[2]}" if aligned else f"{segment}-{i}",
                group=aligned[1] if aligned else segment,
                split="train",
                start=start,
                score=score_of(scores[i, 0]),
                blocks={m: x if whole else _within(x, t, start, end) for m, (x, t) in streams.items()},
                seconds=end - start if end > start else None,
            )


def _within(features: npt.NDArray[Any], times: npt.NDArray[np.float64], start: float, end: float) -> npt.NDArray[Any]:
    middles = times.mean(axis=1)
    within: npt.NDArray[Any] = features[(middles >= start) & (middles < end)]
    return within


def _steps(group: Any) -> Steps:
    """Features and intervals of one segment, checked before memory is taken for them."""
    features, intervals = group["features"], group["intervals"]
    shape = tuple(features.shape)
    if len(shape) != 2 or tuple(intervals.shape) != (shape[0], 2) or features.dtype.kind not in "fiu":
        raise ValueError(f"{group.name}: features {shape} of {features.dtype} with intervals {intervals.shape}")
    if any(part.external or part.is_virtual for part in (features, intervals)):
        raise ValueError(f"{group.name}: its values lie in another file, and are not read")
    if features.nbytes > MAX_ARRAY:
        raise ValueError(f"{group.name}: {features.nbytes:,} bytes, more than the {MAX_ARRAY:,} that are read")
    return features[()], np.asarray(intervals[()], np.float64)
