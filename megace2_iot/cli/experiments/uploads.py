"""Raw media on the way to a cloud that does everything: files in chunks, put together again, and the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import Field

from megace2_iot.codec import DecodeError
from megace2_iot.messages import CHUNK_SIZE, Count, Message

LARGEST = 64 << 20  # bytes of one clip's files


class RawChunk(Message):
    """One piece of one file of a clip; a clip is there once all `chunks` of it are, in whatever order."""

    kind: ClassVar[str] = "raw"
    zstd_level: ClassVar[int] = 0  # media are compressed already
    clip: Count  # of the user's own numbering
    suffix: str = Field(pattern=r"^\.[a-z0-9]{1,5}$")  # of the file
    index: Count  # over all files of the clip
    chunks: int = Field(ge=1, le=LARGEST // 1024)
    data: bytes = Field(max_length=CHUNK_SIZE)


class RawAnswer(Message):
    """The cloud's answer to a clip; times are unix s, durations s."""

    kind: ClassVar[str] = "raw_answer"
    zstd_level: ClassVar[int] = 0
    clip: Count
    score: float
    received_at: float  # of the last chunk
    answered_at: float
    generation: float  # extraction, from its start in a process to its end
    queue: float  # what it waited for: a process, the model
    inference: float


def chunks_of(clip: int, files: Mapping[str, bytes]) -> list[RawChunk]:
    """The files of a clip, by suffix, in chunks."""
    pieces = [
        (suffix, data[at : at + CHUNK_SIZE]) for suffix, data in files.items() for at in range(0, len(data), CHUNK_SIZE)
    ]
    return [
        RawChunk(clip=clip, suffix=suffix, index=index, chunks=len(pieces), data=data)
        for index, (suffix, data) in enumerate(pieces)
    ]


@dataclass(slots=True)
class Uploads:
    """What has arrived of clips that are not whole yet, by user and clip; no clip is larger than `LARGEST`."""

    _parts: dict[tuple[str, int], dict[int, RawChunk]] = field(default_factory=dict)

    def add(self, user: str, chunk: RawChunk) -> dict[str, bytes] | None:
        """Take one chunk; the clip's files by suffix once it is whole. Raises DecodeError for one that cannot be."""
        parts = self._parts.setdefault((user, chunk.clip), {})
        if chunk.index >= chunk.chunks or any(other.chunks != chunk.chunks for other in parts.values()):
            raise DecodeError(f"raw: chunk {chunk.index} of {chunk.chunks} fits no clip")
        parts[chunk.index] = chunk
        if sum(len(part.data) for part in parts.values()) > LARGEST:
            del self._parts[user, chunk.clip]
            raise DecodeError(f"raw: a clip of more than {LARGEST} bytes")
        if len(parts) < chunk.chunks:
            return None
        del self._parts[user, chunk.clip]
        return dict(_joined(parts))


def _joined(parts: Mapping[int, RawChunk]) -> Iterator[tuple[str, bytes]]:
    ordered = [parts[index] for index in sorted(parts)]
    for suffix in dict.fromkeys(part.suffix for part in ordered):
        yield suffix, b"".join(part.data for part in ordered if part.suffix == suffix)
