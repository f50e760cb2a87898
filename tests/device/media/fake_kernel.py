"""A kernel that has one V4L2 camera: answers linuxpy's system calls, on a plain file in place of a device."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

from linuxpy.video import raw

PAGE = 4096  # bytes: buffers are mapped at whole pages
CAN_STREAM = raw.Capability.VIDEO_CAPTURE | raw.Capability.STREAMING


class FakeCamera:
    """Offers `modes` (fourcc, width, height, rate) and gives `images`, then ENODEV, as an unplugged camera does."""

    def __init__(self, path: Path, modes: list[tuple[str, int, int, int]], images: list[bytes]) -> None:
        self.modes = modes
        self.images = list(images)
        self.length = -(-max([1, *map(len, images)]) // PAGE) * PAGE
        self.path = path
        self.capabilities = CAN_STREAM
        self.busy = False
        self.streaming = False
        self.queued: list[int] = []
        self.format: Any = None
        self.interval: tuple[int, int] = (0, 0)
        path.write_bytes(bytes(8 * self.length))

    def ioctl(self, descriptor: Any, request: int, argument: Any = None) -> int:
        name = raw.IOC(request).name
        answer = getattr(self, name.lower(), None)
        if answer is None:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY), name)
        answer(argument)
        return 0

    def querycap(self, asked: Any) -> None:
        asked.capabilities = asked.device_caps = int(self.capabilities)

    def enum_fmt(self, asked: Any) -> None:
        asked.pixelformat = raw.v4l2_fourcc(*self._nth(sorted({mode[0] for mode in self.modes}), asked.index))

    def enum_framesizes(self, asked: Any) -> None:
        sizes = [mode[1:3] for mode in self.modes if raw.v4l2_fourcc(*mode[0]) == asked.pixel_format]
        asked.type = raw.Frmsizetypes.DISCRETE
        asked.m1.discrete.width, asked.m1.discrete.height = self._nth(sizes, asked.index)

    def enum_frameintervals(self, asked: Any) -> None:
        wanted = asked.pixel_format, asked.width, asked.height
        rates = [mode[3] for mode in self.modes if (raw.v4l2_fourcc(*mode[0]), *mode[1:3]) == wanted]
        asked.type = raw.Frmivaltypes.DISCRETE
        asked.m1.discrete.numerator, asked.m1.discrete.denominator = 1, self._nth(rates, asked.index)

    def s_fmt(self, asked: Any) -> None:
        if self.busy:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self.format = asked.fmt.pix.pixelformat, asked.fmt.pix.width, asked.fmt.pix.height

    def g_fmt(self, asked: Any) -> None:
        asked.fmt.pix.pixelformat, asked.fmt.pix.width, asked.fmt.pix.height = self.format

    def s_parm(self, asked: Any) -> None:
        span = asked.parm.capture.timeperframe
        self.interval = span.numerator, span.denominator

    def g_parm(self, asked: Any) -> None:
        asked.parm.capture.timeperframe.numerator, asked.parm.capture.timeperframe.denominator = self.interval

    def reqbufs(self, asked: Any) -> None:
        pass

    def querybuf(self, asked: Any) -> None:
        asked.length, asked.m.offset = self.length, asked.index * self.length

    def qbuf(self, asked: Any) -> None:
        self.queued.append(asked.index)

    def dqbuf(self, asked: Any) -> None:
        if not self.images:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        image, asked.index = self.images.pop(0), self.queued.pop(0)
        with self.path.open("r+b") as file:
            file.seek(asked.index * self.length)
            file.write(image)
        asked.bytesused, now = len(image), time.monotonic()
        asked.timestamp.secs, asked.timestamp.usecs = int(now), int(now % 1 * 1e6)

    def streamon(self, asked: Any) -> None:
        self.streaming = True

    def streamoff(self, asked: Any) -> None:
        if not self.images:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        self.streaming = False

    @staticmethod
    def _nth(things: list[Any], index: int) -> Any:
        if index >= len(things):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return things[index]
