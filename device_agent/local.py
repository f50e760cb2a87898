"""The local model on the device: one release in ONNX Runtime, or in a process with torch where only that is there.

Letters: T time, d width of Z[0].
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from megace2_iot import codec
from megace2_iot.examples import pack
from megace2_iot.features import MODALITIES, Modality
from megace2_iot.tensors import decode_tensors
from megace2_iot.workers import Worker, worker

LARGEST_RELEASE = 64 << 20  # bytes of a local model once unpacked
Sequences = Mapping[Modality, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """What the device itself says of a window."""

    score: float
    confidence: float  # probability that the edge would give the same label
    version: int
    seconds: float


class LocalModel(Protocol):
    """One release, ready to answer."""

    async def answer(self, z: Sequences) -> LocalAnswer | None:
        """The answer to Z[0] (T, d) of the modalities that there are; None where the model has no finite one."""

    async def close(self) -> None:
        """Give back what it holds."""


Opener = Callable[[bytes, int, int], Awaitable[LocalModel]]


def opener() -> Opener | None:
    """Opens a release (bytes, version, width of Z[0]) by what is installed here; None where nothing is.

    It raises ValueError for bytes that are no local model of that width.
    """
    if find_spec("onnxruntime") is not None:
        return _open_graph
    return _open_torch if find_spec("torch") is not None else None


async def _open_graph(release: bytes, version: int, width: int) -> LocalModel:
    return await asyncio.to_thread(GraphModel, release, version, width)  # importing ONNX Runtime takes a second


async def _open_torch(release: bytes, version: int, width: int) -> LocalModel:
    return await TorchModel.start(release, version)


@dataclass(frozen=True, slots=True)
class _Release:
    """The fields of a release's envelope; see `megace2_iot.model.pocket`."""

    base: Mapping[str, np.ndarray[Any, Any]]
    graph: bytes
    prefix: str
    fit: tuple[float, float]

    @classmethod
    def read(cls, data: bytes) -> _Release:
        """Raises ValueError for anything else."""
        fields = codec.decode(data, limit=LARGEST_RELEASE)
        try:
            base, graph = fields["base"], fields["graph"]
            if not (isinstance(base, bytes) and isinstance(graph, bytes)):  # of a number `bytes` would make zeros
                raise TypeError("its base and its graph are no bytes")
            tensors, _ = decode_tensors(base)
            a, b = fields["calibration"]
            return cls(tensors, graph, str(fields["prefix"]), (float(a), float(b)))
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"no local model: {error!r}") from None

    def confidence(self, score: float) -> float:
        a, b = self.fit
        return 1.0 / (1.0 + float(np.exp(-np.clip(a * abs(score) + b, -30, 30))))


class GraphModel:
    """A release in ONNX Runtime, in a thread of its own."""

    def __init__(self, release: bytes, version: int, width: int) -> None:
        self._release, self._version, self._width = _Release.read(release), version, width
        self._session = _session(self._release)
        takes = {i.name: i.shape[-1] for i in self._session.get_inputs()}
        if wrong := [m for m in MODALITIES if takes.get(m) != width]:
            raise ValueError(f"a local model for {wrong[0]} of width {takes.get(wrong[0])}, Z[0] is {width} wide")
        self._thread = ThreadPoolExecutor(1, "local-model")

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def answer(self, z: Sequences) -> LocalAnswer | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.run, z)

    def run(self, z: Sequences) -> LocalAnswer | None:
        """The same as `answer`, in the caller's thread."""
        began = time.perf_counter()
        given: dict[str, np.ndarray[Any, Any]] = {}
        for modality in MODALITIES:
            values = z.get(modality)
            steps = 0 if values is None else len(values)
            held = np.zeros((1, self._width), np.float32) if values is None or not steps else values
            given[modality] = np.ascontiguousarray(held[None], np.float32)
            given[f"{modality}_length"] = np.array([steps], np.int64)
        if not any(given[f"{modality}_length"][0] for modality in MODALITIES):
            return None
        score = float(self._session.run(["scores"], given)[0][0, 0])
        if not np.isfinite(score):
            return None
        return LocalAnswer(score, self._release.confidence(score), self._version, time.perf_counter() - began)


def _session(release: _Release) -> Any:
    """ONNX Runtime's session of a graph whose weights are outside; raises ValueError where it is none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal: what is wrong is said by the exception
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between windows the core is others'
    names = [release.prefix + name for name in release.base]
    held = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(tensor)) for tensor in release.base.values()]
    options.add_external_initializers(names, held)
    try:
        return onnxruntime.InferenceSession(release.graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common class
        raise ValueError(f"a graph that ONNX Runtime does not take: {error}") from None


class TorchModel:
    """A release in a child process with torch: slower to start and 300 MB larger."""

    def __init__(self, process: Worker, stack: contextlib.AsyncExitStack, release: _Release, version: int) -> None:
        self._process, self._stack, self._release, self._version = process, stack, release, version

    @classmethod
    async def start(cls, release: bytes, version: int) -> TorchModel:
        read = _Release.read(release)
        async with contextlib.AsyncExitStack() as stack:
            process = await stack.enter_async_context(worker("device_agent.learner"))
            await process.call("open", release=release)
            return cls(process, stack.pop_all(), read, version)
        raise AssertionError  # the stack lets no error pass in silence

    async def close(self) -> None:
        await self._stack.aclose()

    async def answer(self, z: Sequences) -> LocalAnswer | None:
        began = time.perf_counter()
        (score,) = (await self._process.call("answer", examples=pack([z])))["scores"]
        if not np.isfinite(score):
            return None
        return LocalAnswer(score, self._release.confidence(score), self._version, time.perf_counter() - began)
