"""How good each release is on a data set's test rows, told by the trainer beside all other work."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from cloud_aggregator.store import Release, Store
from megace2_iot.features import MODALITIES
from megace2_iot.problems import Problem
from megace2_iot.telemetry import Telemetry
from megace2_iot.workers import Worker, WorkerError

_log = logging.getLogger("megace2.cloud")
WAITING = 64  # releases; one more is not scored


class Scores:
    """Scores releases in turn; without `data`, the arguments of the trainer's task of that name, none."""

    def __init__(self, trainer: Worker, store: Store, telemetry: Telemetry, data: Mapping[str, Any] | None) -> None:
        self._trainer, self._store, self._telemetry, self._data = trainer, store, telemetry, data
        self._dims: Mapping[str, int] = {}  # of the data
        self._waiting: asyncio.Queue[Release] = asyncio.Queue(WAITING)

    async def load(self) -> None:
        """Read the data set; raises `Problem` for one that cannot be used."""
        if self._data is None:
            return
        try:
            found = await self._trainer.call("data", **self._data)
        except WorkerError as error:
            raise Problem(f"[cloud] data: {error}") from None
        self._dims = found["dims"]
        _log.info("releases are scored on %d held-out samples", found["samples"])

    def check(self, config: str) -> None:
        """Raises `Problem` where the data are not what the model takes: no release could be scored."""
        takes = json.loads(config)["dims"]
        if any(takes.get(modality) != dim for modality, dim in self._dims.items()):
            raise Problem(
                f"[cloud] data: its features are {_widths(self._dims)} wide, the model takes {_widths(takes)}"
            )

    def add(self, release: Release) -> None:
        if self._data is not None and not self._waiting.full():
            self._waiting.put_nowait(release)

    async def run(self, config: str, stem: memoryview) -> None:
        """Score what was added, for ever."""
        while True:
            release = await self._waiting.get()
            blob = self._store.release(release.family, release.version)
            if blob is None:
                continue
            try:
                if not self._trainer.alive:  # it crashed; a new one knows no samples yet
                    await self._trainer.restart()
                    await self.load()
                scores = await self._trainer.call("score", config=config, base=blob, stem=stem)
            except WorkerError as error:
                _log.error("%s", error)
                continue
            self._store.note_scores(release.family, release.version, scores)
            self._telemetry.gauge("release_accuracy", float(scores["acc2"]))


def _widths(dims: Mapping[str, int]) -> str:
    return ", ".join(f"{modality} {dims[modality]}" for modality in MODALITIES if modality in dims)
