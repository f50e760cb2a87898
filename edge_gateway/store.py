"""What an edge keeps on disk: its base, its adapter (which never leaves), its round number, its dedup windows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_gateway.dedup import DedupWindow
from megace2_iot.blobs import Blob, BlobStore, digest
from megace2_iot.codec import DecodeError, decode, encode
from megace2_iot.messages import LocalModel, ModelPointer
from megace2_iot.tensors import decode_tensors, encode_tensors

MOST_SEEN = 1 << 25  # values in the file of what was seen: 4,096 devices, two epochs of each, some 1,000 ranges each
QUARANTINED = 32  # bad packets kept for inspection; older ones go


class EdgeStore:
    """One edge's state directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.blobs = BlobStore(directory / "blobs")
        self._quarantined = 0

    # -- the base ---------------------------------------------------------------------
    def keep_release(self, pointer: ModelPointer, blob: Blob, stem: Blob) -> None:
        """Remember the adopted release; earlier blobs go."""
        for name, data in ((pointer.sha256, blob), (pointer.stem, stem)):
            if not self.blobs.has(name):
                self.blobs.put(data)
        _replace(self.directory / "release", pointer.encode())
        self.blobs.keep_only([pointer.sha256, pointer.stem])

    # -- the local model --------------------------------------------------------------
    def keep_local(self, pointer: LocalModel, blob: bytes) -> None:
        """Remember the local model's newest release."""
        _replace(self.directory / "local.model", blob)
        _replace(self.directory / "local", pointer.encode())

    def local(self) -> tuple[LocalModel, bytes] | None:
        """The local model's last release; None before the first, or where it cannot be read."""
        try:
            pointer = LocalModel.decode((self.directory / "local").read_bytes())
            blob = (self.directory / "local.model").read_bytes()
        except (OSError, DecodeError):
            return None
        return (pointer, blob) if digest(blob) == pointer.sha256 else None

    def release(self) -> tuple[ModelPointer, memoryview, memoryview] | None:
        """The last adopted release with its blob and its stem's, where all three are here."""
        path = self.directory / "release"
        try:
            pointer = ModelPointer.decode(path.read_bytes())
            return pointer, self.blobs.view(pointer.sha256), self.blobs.view(pointer.stem)
        except (OSError, DecodeError):
            return None

    # -- the adapter ------------------------------------------------------------------
    @property
    def adapter_path(self) -> Path:
        return self.directory / "adapter.safetensors"

    def keep_adapter(self, tensors: Mapping[str, np.ndarray[Any, Any]], judged: Mapping[str, Any]) -> None:
        """Remember the adapter, and how it was judged (plain values)."""
        _replace(self.adapter_path, encode_tensors(tensors, {"judged": json.dumps(dict(judged))}))

    def adapter(self) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]] | None:
        """The last adapter and its judgement; None before the first, or where it cannot be read."""
        try:
            tensors, metadata = decode_tensors(self.adapter_path.read_bytes())
            return tensors, dict(json.loads(metadata["judged"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    # -- bad packets ------------------------------------------------------------------
    def quarantine(self, device: str, payload: bytes, reason: str) -> None:
        """Keep a packet that could not be read, beside why."""
        folder = self.directory / "quarantine"
        folder.mkdir(exist_ok=True)
        self._quarantined += 1
        name = f"{self._quarantined % QUARANTINED:02d}"
        _replace(folder / f"{name}.packet", payload)
        _replace(folder / f"{name}.reason", f"{device}: {reason}\n".encode())

    # -- small things -----------------------------------------------------------------
    def keep_round_number(self, number: int) -> None:
        _replace(self.directory / "round.json", json.dumps({"round": number}).encode())

    def round_number(self) -> int:
        """The last round that was opened; numbers are not used twice."""
        try:
            return int(json.loads((self.directory / "round.json").read_text())["round"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return 0

    def keep_dedup(self, windows: Mapping[str, DedupWindow]) -> None:
        state = {device: window.to_state() for device, window in windows.items()}
        _replace(self.directory / "dedup", encode(state, level=1))

    def dedup(self, remembered: int) -> dict[str, DedupWindow]:
        """The dedup windows by device; empty where there are none or they cannot be read."""
        try:
            state = decode((self.directory / "dedup").read_bytes(), limit=256 << 20, values=MOST_SEEN)
            return {device: DedupWindow.from_state(fields, remembered) for device, fields in state.items()}
        except (OSError, DecodeError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return {}


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
