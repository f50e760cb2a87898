"""A track of decoded video frames as small RGB pictures at a regular rate."""

from __future__ import annotations

import math
import time

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from device_agent.media.chunks import Losses, Picture
from device_agent.media.clock import TrackClock
from device_agent.media.reading import Reading
from device_agent.media.ticks import Ticks

Pixels = npt.NDArray[np.uint8]


class PictureTrack:
    """Only frames that a tick shows are converted; a picture comes out when the frame after it is known."""

    def __init__(
        self,
        reading: Reading,
        losses: Losses,
        clock: TrackClock | None = None,
        *,
        declared: float | None = None,
        aspect: float = 1.0,
    ) -> None:
        self._reading = reading
        self._losses = losses
        self._clock = clock or TrackClock()
        self._aspect = aspect  # width / height of one pixel of the source
        self._ticks = Ticks(reading.picture_rate, declared)
        self._scaler = VideoReformatter()
        self._held: VideoFrame | None = None
        self._time = -math.inf  # s of the latest frame

    def push(self, frame: VideoFrame, stamp: float | None) -> list[Picture]:
        """Pictures of the ticks between the last frame and this one, stamped `stamp` s."""
        doubts = self._clock.doubts
        expected = self._time + self._ticks.period if self._held else max(0.0, self._time)
        when = max(0.0, self._clock.time(stamp, expected))
        if self._clock.doubts > doubts:
            self._losses.count("video_doubts")
        if when <= self._time:
            self._losses.count("video_disorder")
            return []
        pictures = self._shown(self._ticks.frame(when))
        self._held, self._time = frame, when
        return pictures

    def flush(self) -> list[Picture]:
        """Pictures of the last frame's ticks."""
        pictures = self._shown(self._ticks.end())
        self._held = None
        return pictures

    def _shown(self, times: list[float]) -> list[Picture]:
        """The held frame at each of these ticks: one array, however many."""
        if self._ticks.missing:
            self._losses.counts["missing_pictures"] = self._ticks.missing
        if not times or self._held is None:
            return []
        begun = time.perf_counter()
        pixels = scaled(self._scaler, self._held, self._reading, self._aspect)
        self._losses.took("scale", time.perf_counter() - begun)
        return [Picture(pixels, tick) for tick in times]


def scaled(scaler: VideoReformatter, frame: VideoFrame, reading: Reading, aspect: float = 1.0) -> Pixels:
    """(H, W, 3) RGB of the wanted size, upright: telephones film sideways and say so in the file."""
    quarters = round(frame.rotation / 90) % 4
    shape = frame.width * aspect / frame.height
    width, height = working_size(reading, 1 / shape if quarters % 2 else shape)
    if quarters % 2:
        width, height = height, width
    small = scaler.reformat(frame, width, height, "rgb24", interpolation=Interpolation.AREA, threads=1)
    pixels = np.asarray(small.to_ndarray(), dtype=np.uint8)
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels


def working_size(reading: Reading, shape: float) -> tuple[int, int]:
    """(width, height) in pixels, both even where the height follows from `shape`, a picture's width / height."""
    if reading.height is not None:
        return reading.width, reading.height
    return reading.width, max(2, 2 * round(reading.width / shape / 2))
