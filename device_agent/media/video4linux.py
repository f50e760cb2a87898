"""Cameras of Linux through linuxpy (V4L2): find a modest mode, take images until they stop."""

from __future__ import annotations

import errno
import logging
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from device_agent.media.chunks import MediaError
from device_agent.media.images import COMPRESSED, PLAIN, Image, Shots, Wish
from device_agent.media.reconnecting import DeviceLost

BEAT = 0.5  # s between two looks at whether to stop
SILENCE = 5.0  # s without an image after which a camera is taken for hung and opened again
BUFFERS = 4  # images that the driver may fill while one is decoded
OLDEST = 2.0  # s that an image may have waited; a stamp beyond is of another clock than ours
TOO_SLOW = 0.5  # of the wished rate
CHEAPEST = (*PLAIN, *COMPRESSED)  # to decode; what is compressed comes last


@dataclass(frozen=True, slots=True)
class Mode:
    """One way in which a camera gives images."""

    fourcc: str
    width: int  # pixels
    height: int
    rate: float  # Hz, 0 where it does not say


def chosen_mode(modes: Sequence[Mode], wish: Wish) -> Mode | None:
    """The smallest mode that is large and fast enough; among equals the one that is cheapest to decode."""
    known = [mode for mode in modes if mode.fourcc in COMPRESSED or mode.fourcc in PLAIN]

    def cost(mode: Mode) -> tuple[bool, bool, int, int]:
        small = mode.width < wish.width or mode.height < wish.height
        slow = 0 < mode.rate < TOO_SLOW * wish.rate
        area = mode.width * mode.height
        return slow, small, -area if small else area, CHEAPEST.index(mode.fourcc)

    return min(known, key=cost, default=None)


@contextmanager
def open_video4linux(device: str, wish: Wish) -> Iterator[Shots]:
    """An open camera; raises DeviceLost where it is absent or busy, MediaError where linuxpy is missing."""
    try:
        from linuxpy.video.device import Device, V4L2Error, VideoCapture
    except ImportError:
        raise MediaError("cameras need linuxpy: pip install 'megace2-iot[sense]'") from None
    logging.getLogger("linuxpy").setLevel(logging.WARNING)  # it tells of every attempt to open
    try:
        camera = Device(device)
        camera.open()
        try:
            capture = VideoCapture(camera, size=BUFFERS)
            _set_mode(camera, capture, wish)
            capture.open()
            yield _shots(camera, capture)
        finally:
            with suppress(OSError, ValueError):  # an unplugged camera cannot be told to stop
                capture.close()
            with suppress(OSError):
                camera.close()
    except V4L2Error:
        raise DeviceLost(f"{device} is not a camera but a part of one: try another /dev/video number") from None
    except OSError as error:
        raise DeviceLost(_reason(device, error)) from None


def _set_mode(camera: Any, capture: Any, wish: Wish) -> None:
    """Ask for the best mode; the driver may give another, which `_shots` reads back."""
    modes = modes_of(camera, capture.type, wish)
    mode = chosen_mode(modes, wish)
    if mode is None:
        offered = ", ".join(sorted({mode.fourcc for mode in modes})) or "none"
        raise DeviceLost(f"{camera.filename} offers no image format that can be read here (it has {offered})")
    capture.set_format(mode.width, mode.height, mode.fourcc)
    with suppress(OSError):  # some drivers have one rate and no way to set it
        capture.set_fps(min(mode.rate or wish.rate, wish.rate))


def modes_of(camera: Any, buffer_type: Any, wish: Wish) -> list[Mode]:
    """What a camera offers; one that scales to any size offers the wished one."""
    modes: list[Mode] = []
    for offered in camera.info.buffer_formats(buffer_type):
        fourcc = offered.pixel_format.human_str()
        sizes = camera.info.format_frame_sizes(offered.pixel_format)
        discrete = [(size.info.width, size.info.height) for size in sizes if size.type.name == "DISCRETE"]
        for width, height in discrete or [(wish.width, wish.height)]:
            rates = [float(kind.max_fps) for kind in camera.info.fps_intervals(offered.pixel_format, width, height)]
            modes.append(Mode(fourcc, width, height, max(rates, default=0.0)))
    return modes


def _shots(camera: Any, capture: Any) -> Shots:
    """The open stream, in the format that the driver settled on."""
    given = capture.get_format()
    rate: float | None = None
    with suppress(OSError, ZeroDivisionError):
        rate = float(capture.get_fps()) or None
    return Shots(
        fourcc=given.pixel_format.human_str(),
        width=given.width,
        height=given.height,
        rate=rate,
        images=_images(camera, capture),
        stride=given.bytes_per_line,
    )


def _images(camera: Any, capture: Any) -> Iterator[Image | None]:
    heard = time.monotonic()
    while True:
        # linuxpy's own waiting read calls the module `select`, and would not let us look at the time
        ready, _, _ = select.select([camera.fileno()], [], [], BEAT)
        now = time.monotonic()
        if ready:
            try:
                frame = capture.buffer.raw_read()
            except BlockingIOError:
                continue
            heard = now
            yield Image(bytes(frame.data), taken_at(frame.timestamp, now))
        elif now - heard > SILENCE:
            raise DeviceLost(f"{camera.filename} has given no image for {SILENCE:g} s: unplug it and plug it in again")
        else:
            yield None


def taken_at(stamp: float, now: float) -> float:
    """A driver's stamp in monotonic s, or now where it is of another clock."""
    return stamp if now - OLDEST <= stamp <= now else now


def _reason(device: str, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENXIO:
            return f"there is no camera {device}: plug it in, or see which there are (ls /dev/video*)"
        case errno.ENODEV:
            return f"the camera {device} was unplugged: plug it in again"
        case errno.EBUSY:
            return f"the camera {device} is in use by another program: close that"
        case errno.EACCES | errno.EPERM:
            return f"no permission for {device}: join its group (sudo usermod -aG video $USER) and log in again"
    return f"the camera {device} fails ({error.strerror or error}): unplug it and plug it in again"
