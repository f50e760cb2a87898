"""A user's own ONNX model as the extractor of pictures: one row of its output for each.

The model has one input (N, 3, H, W) of float32, N being 1 or free: RGB in 0..1, less `mean`, by `std`, which the
settings or the model's metadata of these names give as three numbers. Its first output is (N, D), or (N, D, 1, 1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from device_agent.extraction.picture import Look, look, resized
from device_agent.extraction.rows import Array, Rows
from device_agent.extraction.vision import Shutter, observed
from device_agent.media.chunks import Chunk, Picture
from megace2_iot.features import Modality
from megace2_iot.problems import Problem

ANY_SIZE = (224, 224)  # width and height for a model that takes pictures of any
WIDEST = 4096  # numbers a row
Three = tuple[float, float, float]


class OnnxExtractor:
    """Rows of D numbers from RGB pictures; those of another size than `size` are scaled here, at some cost.

    With `batch` > 1 and a free first dimension that many pictures are answered together, the first of them late.
    `observed` is as the `VisionExtractor` has it.
    """

    modality: Modality = "vision"

    def __init__(
        self,
        path: Path,
        rate: float = 15.0,
        *,
        mean: Three | None = None,
        std: Three | None = None,
        batch: int = 1,
    ) -> None:
        self.step = 1 / rate
        self._path, self._session = path, _session(path)
        name, self.size, free = _input(path, self._session)
        self._name, self._batch = name, batch if free else 1
        told = self._session.get_modelmeta().custom_metadata_map
        self._mean = np.array(mean or _three(path, told, "mean", 0.0), np.float32)[:, None, None]
        self._std = np.array(std or _three(path, told, "std", 1.0), np.float32)[:, None, None]
        if not (self._std > 0).all():
            raise Problem(f"{path}: std {self._std.ravel().tolist()} should be three numbers above 0")
        self.dim = self._run(np.zeros((1, 3, *reversed(self.size)), np.float32)).shape[1]
        self._new()

    def _new(self) -> None:
        self._shutter = Shutter(self.step)
        self._waiting: list[tuple[float, Look, Array]] = []

    def push(self, chunk: Chunk) -> Rows | None:
        if not isinstance(chunk, Picture) or not self._shutter.takes(chunk.start):
            return None
        self._waiting.append((chunk.start, look(chunk.pixels), self._prepared(chunk.pixels)))
        return self._rows() if len(self._waiting) == self._batch else None

    def flush(self) -> Rows | None:
        rows = self._rows() if self._waiting else None
        self._new()
        return rows

    def _rows(self) -> Rows:
        times, seen, pictures = zip(*self._waiting, strict=True)
        self._waiting = []
        return Rows(self._run(np.stack(pictures)), np.array(times, np.float64), self.step, observed(list(seen)))

    def _prepared(self, pixels: npt.NDArray[np.uint8]) -> Array:
        """A picture (3, H, W) as the model takes it."""
        width, height = self.size
        planes = np.stack([resized(pixels[..., channel].astype(np.float32), height, width) for channel in range(3)])
        return (planes / np.float32(255) - self._mean) / self._std

    def _run(self, pictures: Array) -> Array:
        """(N, D), finite."""
        try:
            output = np.asarray(self._session.run(None, {self._name: pictures})[0])
        except Exception as error:  # onnxruntime's exceptions have no class in common
            raise Problem(f"{self._path} cannot run: {_said(error)}") from None
        values = output.reshape(len(output), -1) if output.ndim >= 2 else output[None]
        if output.dtype.kind != "f" or len(values) != len(pictures) or not 1 <= values.shape[1] <= WIDEST:
            form = f"{output.shape} of {output.dtype}"
            raise Problem(f"{self._path} answers {form}: expected float (N, D), D up to {WIDEST}, for N pictures")
        return np.nan_to_num(values.astype(np.float32))


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise Problem("vision_model needs ONNX Runtime: pip install 'megace2-iot[onnx]'") from None
    if not path.is_file():
        raise Problem(f"vision_model: there is no file {path}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the device has other work
    options.log_severity_level = 4  # what is wrong is raised too
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no class in common
        raise Problem(f"{path} is no ONNX model that can be read here: {_said(error)}") from None


def _input(path: Path, session: Any) -> tuple[str, tuple[int, int], bool]:
    """The input's name, (width, height), and whether its first dimension is free."""
    inputs = session.get_inputs()
    forms = ", ".join(f"{one.name} {one.shape} of {one.type}" for one in inputs)
    wrong = Problem(f"{path} takes {forms}: export it with one input (1, 3, H, W) or (N, 3, H, W) of float32")
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
        raise wrong
    count, channels, height, width = (size if isinstance(size, int) else None for size in inputs[0].shape)
    if count not in (None, 1) or channels not in (None, 3):
        raise wrong
    return inputs[0].name, (width or ANY_SIZE[0], height or ANY_SIZE[1]), count is None


def _three(path: Path, told: dict[str, str], name: str, default: float) -> Three:
    try:
        red, green, blue = map(float, told.get(name, f"{default} " * 3).replace(",", " ").split())
    except ValueError:
        raise Problem(f"{path}: its metadata {name} {told[name]!r} should be three numbers") from None
    return red, green, blue


def _said(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
