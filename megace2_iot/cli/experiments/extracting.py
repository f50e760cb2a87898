"""How a cloud that does everything extracts: on this machine's cores, which it shares, or replayed on cores of its own.

Both queue: a clip waits until one of the cores is free.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from megace2_iot.features import Modality

if TYPE_CHECKING:
    from device_agent.sensing.pipeline import Extraction

Sequences = Mapping[Modality, np.ndarray[Any, Any]]  # features (T, D)
_extraction: tuple[Extraction, Path] | None = None  # of a pool's process, made once in it


class Extractor(Protocol):
    """What makes features of raw files."""

    async def extract(self, files: Mapping[str, bytes]) -> tuple[Sequences, float]:
        """The features, and the s that they took once a core was free."""


class OnCores:
    """A pool of processes."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    async def extract(self, files: Mapping[str, bytes]) -> tuple[Sequences, float]:
        return await asyncio.get_running_loop().run_in_executor(self._pool, _extract, files)


class Replayed:
    """Known clips: each takes the time that it was measured to take by itself, and costs nothing."""

    def __init__(self, cores: int, known: Mapping[str, tuple[Sequences, float]]) -> None:
        """`known` are features and s by the digest of a clip's files."""
        self._free, self._known = asyncio.Semaphore(cores), known

    async def extract(self, files: Mapping[str, bytes]) -> tuple[Sequences, float]:
        features, took = self._known[_digest(files)]
        async with self._free:
            await asyncio.sleep(took)
        return features, took


@contextlib.asynccontextmanager
async def on_cores(cores: int, folder: Path) -> AsyncIterator[OnCores]:
    """Processes that have their extractors ready."""
    pool = ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), _open, (str(folder),))
    try:
        warm = [pool.submit(time.sleep, 0.5) for _ in range(cores)]  # each process is started by one of them
        await asyncio.gather(*(asyncio.wrap_future(each) for each in warm))
        yield OnCores(pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def replayed(cores: int, clips: Path, seconds: Sequence[float], scratch: Path) -> Replayed:
    """The clips of a folder, each of which takes so many s."""
    from megace2_iot.cli.experiments.clips import raw_clips

    _open(str(scratch))
    found = raw_clips(clips, len(seconds))
    known = {_digest(c.files): (_extract(c.files)[0], s) for c, s in zip(found, seconds, strict=True)}
    return Replayed(cores, known)


def _digest(files: Mapping[str, bytes]) -> str:
    from megace2_iot.cli.experiments.clips import RawClip, digest

    return digest([RawClip("", files)])


def _open(folder: str) -> None:
    """In the process that extracts: make the extractors."""
    global _extraction
    from device_agent.extraction.settings import SenseSettings
    from device_agent.sensing.pipeline import Extraction

    _extraction = Extraction(SenseSettings()), Path(tempfile.mkdtemp(dir=folder))


def _extract(files: Mapping[str, bytes]) -> tuple[Sequences, float]:
    """In the process that extracts."""
    from megace2_iot.cli.experiments.clips import extract

    assert _extraction is not None
    found = extract(files, *_extraction)
    return {modality: np.asarray(f.values) for modality, f in found.features.items()}, found.generation
