"""Recorded streams: the packets of a site as they came, in a file that a replay plays again.

    8 bytes  b"M2REC\\x00\\x01\\x00"            magic and version
    records  length (u32 little endian), then one envelope {"at": unix s, "device": id, "packet": bytes}

A record that was cut off (the recorder was killed) ends the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from megace2_iot.codec import DecodeError, decode, encode
from megace2_iot.datasets import Dataset, Sample, load
from megace2_iot.datasets.splits import resplit
from megace2_iot.features import Features, Modality
from megace2_iot.messages import FeaturePacket
from megace2_iot.quantize import Quantized, dequantize

MAGIC = b"M2REC\x00\x01\x00"
LENGTH = struct.Struct("<I")
MAX_RECORD = 16 << 20  # bytes


class Recorder:
    """Appends packets to a new file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._file.write(MAGIC)
        self.records = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    def add(self, at: float, device: str, packet: bytes) -> None:
        record = encode({"at": at, "device": device, "packet": packet}, level=0)
        self._file.write(LENGTH.pack(len(record)) + record)
        self.records += 1


def is_recording(source: str) -> bool:
    """Whether `source` is a file of ours."""
    try:
        with Path(source).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def load_or_read(
    source: str, seed: int = 0, sites: int = 2, *, split: str = "official", vectors: Path | None = None
) -> Dataset:
    """The data set `source` as `datasets.load` does it, or the recording at that path, split likewise."""
    if not is_recording(source):
        return load(source, seed, sites, split=split, vectors=vectors)
    if vectors is not None:
        raise ValueError("a recording holds no text: word vectors are of no use to it")
    return resplit(read_recording(Path(source)), split, seed)


def records(path: Path) -> Iterator[tuple[float, str, FeaturePacket]]:
    """Every readable record; raises ValueError for a damaged one."""
    with path.open("rb") as file:
        file.read(len(MAGIC))
        while len(head := file.read(LENGTH.size)) == LENGTH.size:
            (size,) = LENGTH.unpack(head)
            body = file.read(size) if size <= MAX_RECORD else b""
            if len(body) < size:
                return
            try:
                fields: dict[str, Any] = decode(body, limit=MAX_RECORD)
                yield float(fields["at"]), str(fields["device"]), FeaturePacket.decode(fields["packet"])
            except (DecodeError, KeyError, TypeError) as error:
                raise ValueError(f"{path} is damaged: {error}") from None


def read_recording(path: Path) -> Dataset:
    """A recording as a data set: a group a device, on the clock of its packets. Raises ValueError where it is empty."""
    samples: list[Sample] = []
    dims: dict[Modality, int] = {}
    first: float | None = None
    for at, device, packet in records(path):
        first = at if first is None else first
        for window in packet.windows:
            features = {m: Features(dequantize(Quantized.from_fields(f))) for m, f in window.sequences.items()}
            dims |= {m: f.values.shape[1] for m, f in features.items()}
            samples.append(
                Sample(
                    id=f"{device}-{packet.epoch}-{window.seq}",
                    group=device,
                    split="train" if window.score is not None else "test",
                    start=at - first,
                    score=window.score,
                    features=features,
                    features_saw_label=window.features_saw_label,
                    stem=packet.stem,
                )
            )
    if not samples:
        raise ValueError(f"{path} holds no packet")
    samples.sort(key=lambda sample: (sample.group, sample.start))
    return Dataset(path.name, dims, tuple(samples), (f"recorded, {len(samples)} windows",))
