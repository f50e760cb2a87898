"""The blobs of the cloud's store: written by rename, on the disk itself where the store is durable."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from cloud_aggregator.ledger import StoreError
from megace2_iot.blobs import Blob, BlobStore, digest


class Files:
    """A store's blobs; `lock` is held from writing one until a row names it."""

    def __init__(self, directory: Path, durable: bool) -> None:
        self.blobs, self._durable = BlobStore(directory), durable
        self.lock = threading.RLock()

    def put(self, parts: Sequence[Blob], known: str = "") -> str:
        """Store a blob (its parts); `known` is its hash where that was checked."""
        sha256 = known or digest(*parts)
        path = self.blobs.path(sha256)
        try:
            if self.holds(sha256, sum(map(len, parts))):
                self._sync(path)  # a pulled blob may be in the page cache only
            else:
                part = path.with_suffix(".new")
                with part.open("wb") as file:
                    file.writelines(parts)
                self._sync(part)
                part.replace(path)
            self._sync(self.blobs.directory)
        except OSError as error:
            raise StoreError(
                f"{path.parent} cannot be written: {error.strerror}; free space or check the disk"
            ) from None
        return sha256

    def holds(self, sha256: str, size: int) -> bool:
        """Whether the blob is there whole. One that is has the content of its name: it was synced before a row named
        it, or pulled and verified since the store was opened, which removed all others.
        """
        path = self.blobs.path(sha256)
        return path.exists() and path.stat().st_size == size

    def read(self, sha256: str) -> memoryview | None:
        """The blob; None where it is not there."""
        try:
            return self.blobs.view(sha256)
        except FileNotFoundError:
            return None

    def remove(self, names: Iterable[str]) -> None:
        for sha256 in names:
            self.blobs.path(sha256).unlink(missing_ok=True)

    def keep_only(self, names: Iterable[str]) -> None:
        """Delete all other blobs, and what was never finished."""
        self.blobs.keep_only(names)
        for path in self.blobs.directory.glob("*.new"):
            path.unlink(missing_ok=True)

    def keep_parts(self, most: int) -> None:
        """Of the blobs that came in part only, and are not on their way now, keep the newest."""
        parts = [p for p in self.blobs.directory.glob("*.part") if p.stem not in self.blobs.transfers]
        parts.sort(key=lambda path: path.stat().st_mtime)
        for path in parts[: max(0, len(parts) - most)]:
            path.unlink(missing_ok=True)
            path.with_suffix(".map").unlink(missing_ok=True)

    def _sync(self, path: Path) -> None:
        """Wait until a file's content, or a directory's names, are on the disk."""
        if self._durable:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
