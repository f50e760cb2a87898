"""Images as cameras give them: their formats, and how they become frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from device_agent.media.reconnecting import DeviceLost

COMPRESSED = {"MJPG": "mjpeg", "JPEG": "mjpeg", "H264": "h264", "HEVC": "hevc"}  # V4L2's names to FFmpeg's decoders
PLAIN = {  # V4L2's names to FFmpeg's pixel formats and the bytes of a pixel in the first plane
    "YUYV": ("yuyv422", 2),
    "UYVY": ("uyvy422", 2),
    "YVYU": ("yvyu422", 2),
    "NV12": ("nv12", 1),
    "NV21": ("nv21", 1),
    "YU12": ("yuv420p", 1),
    "422P": ("yuv422p", 1),
    "RGB3": ("rgb24", 3),
    "BGR3": ("bgr24", 3),
    "RGBP": ("rgb565le", 2),
    "BGR4": ("bgr0", 4),
    "XR24": ("bgr0", 4),
    "GREY": ("gray", 1),
}


@dataclass(frozen=True, slots=True)
class Image:
    """One image as the driver gave it, taken at `at` monotonic s."""

    data: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Shots:
    """What an open camera gives: images of one format; None among them says that it is still waiting."""

    fourcc: str
    width: int  # pixels
    height: int
    rate: float | None  # Hz
    images: Iterator[Image | None]
    stride: int = 0  # bytes of a row where they are more than its pixels'; 0 for none


@dataclass(frozen=True, slots=True)
class Wish:
    """At least this size and about this rate."""

    width: int
    height: int
    rate: float  # Hz


class ImageDecoder:
    """Images of one camera as frames; raises DeviceLost for a format that nothing here reads."""

    def __init__(self, shots: Shots) -> None:
        self._stride, self._row = 0, 0  # bytes of a row, and of the pixels in it
        if shots.fourcc in COMPRESSED:
            self._context = _decoder(COMPRESSED[shots.fourcc])
        elif shots.fourcc in PLAIN:
            pixels, size = PLAIN[shots.fourcc]
            self._context = _decoder("rawvideo")
            self._context.width, self._context.height = shots.width, shots.height
            self._context.pix_fmt = pixels
            self._stride, self._row = shots.stride, size * shots.width
        else:
            raise DeviceLost(f"the camera gives images in the format {shots.fourcc}, which nothing here reads")

    def frames(self, data: bytes) -> list[VideoFrame]:
        """Frames that these bytes complete; raises FFmpegError or ValueError for damaged ones."""
        if not data:
            raise ValueError("no bytes")  # to a decoder they would be the end of its stream
        if self._stride > self._row:
            rows = np.frombuffer(data, np.uint8)
            data = rows[: len(rows) // self._stride * self._stride].reshape(-1, self._stride)[:, : self._row].tobytes()
        return self._context.decode(Packet(data))


def _decoder(name: str) -> VideoCodecContext:
    context = av.CodecContext.create(name, "r")
    assert isinstance(context, VideoCodecContext)
    context.thread_count = 1  # threads would hold images back
    return context
