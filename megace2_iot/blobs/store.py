"""A directory of blobs, each named by its hash."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

Blob = bytes | memoryview


def digest(*parts: Blob) -> str:
    """sha256 in hex, of parts as if they were one."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()


def chunk_tag(sha256: str) -> str:
    """The part of a chunk topic that names its blob."""
    return sha256[:16]


@dataclass(slots=True)
class Transfer:
    """One running pull; the last caller to leave ends it."""

    task: asyncio.Task[None]
    owner: object  # the puller on whose connection it runs
    callers: int = 0


class BlobStore:
    """A directory of blobs, each named by its sha256.

    `owner` names unfinished files, so that processes may share the directory; the connections of one process share
    the transfers themselves.
    """

    def __init__(self, directory: Path, owner: str = "") -> None:
        self.directory, self.owner = directory, owner
        self.transfers: dict[str, Transfer] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.directory / sha256

    def has(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    def view(self, sha256: str) -> memoryview:
        """The blob as a map of its file: no copy, and good for as long as it is held, whoever deletes the file."""
        with self.path(sha256).open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def put(self, data: Blob) -> str:
        """Store `data` by rename; returns its sha256."""
        name = digest(data)
        if not self.has(name):
            part = self.directory / f"{name}.{os.getpid()}.new"
            part.write_bytes(data)
            part.replace(self.path(name))
        return name

    def keep_only(self, names: Iterable[str]) -> None:
        """Delete every finished blob that is not named."""
        wanted = set(names)
        for path in self.directory.iterdir():
            if len(path.name) == 64 and path.name not in wanted:
                path.unlink(missing_ok=True)
