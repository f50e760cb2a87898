"""Cameras: formats, choice of a mode, loss and return; the hardware is a fake, the bytes are real."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import av
import numpy as np
import pytest
from written_media import moving

from device_agent.media.camera import camera
from device_agent.media.chunks import Losses, MediaError, Picture
from device_agent.media.images import Image, ImageDecoder, Shots, Wish
from device_agent.media.reading import Reading
from device_agent.media.reconnecting import DeviceLost
from device_agent.media.video4linux import Mode, chosen_mode, taken_at

WISH = Wish(320, 240, 30)


def as_bytes(picture: np.ndarray, fourcc: str) -> bytes:
    """A picture as a camera would send it."""
    frame = av.VideoFrame.from_ndarray(picture, "rgb24")
    if fourcc == "MJPG":
        context = av.CodecContext.create("mjpeg", "w")
        context.width, context.height, context.pix_fmt, context.time_base = frame.width, frame.height, "yuvj420p", 1
        return b"".join(bytes(p) for p in [*context.encode(frame.reformat(format="yuvj420p")), *context.encode(None)])
    formats = {"YUYV": "yuyv422", "NV12": "nv12", "GREY": "gray", "BGR3": "bgr24", "YU12": "yuv420p"}
    return frame.reformat(format=formats[fourcc]).to_ndarray().tobytes()


def shots(images: Iterator[Image | None], fourcc: str = "MJPG", **more: int) -> Shots:
    return Shots(fourcc, 160, 120, 30.0, images, **more)


class Cable:
    """A camera at a port: `plugs` says for each opening what it gives, or how it fails."""

    def __init__(self, *plugs: Callable[[], Iterator[Image | None]] | DeviceLost) -> None:
        self.plugs = list(plugs)
        self.opened = 0
        self.closed = 0

    @contextmanager
    def __call__(self, device: str, wish: Wish) -> Iterator[Shots]:
        plug = self.plugs[min(self.opened, len(self.plugs) - 1)]
        self.opened += 1
        if isinstance(plug, DeviceLost):
            raise plug
        try:
            yield shots(plug())
        finally:
            self.closed += 1


def filming(
    began: float, first: int, last: int, *, then: Exception | None = None
) -> Callable[[], Iterator[Image | None]]:
    """Images `first` to `last` of 30 a second, in JPEG, and the end of it."""

    def images() -> Iterator[Image | None]:
        for k in range(first, last):
            yield None
            yield Image(as_bytes(np.full((120, 160, 3), 40 + k, np.uint8), "MJPG"), began + k / 30)
        if then is not None:
            raise then

    return images


def read(cable: Cable, count: int, losses: Losses, began: float) -> list[Picture]:
    source = camera("/dev/video9", Reading(), losses, began=began, open_camera=cable, first_wait=0.01)
    stop = threading.Event()
    pictures: list[Picture] = []
    for chunk in source(stop):
        assert isinstance(chunk, Picture)
        pictures.append(chunk)
        if len(pictures) == count:
            stop.set()
    return pictures


@pytest.mark.parametrize("fourcc", ["MJPG", "YUYV", "NV12", "GREY", "BGR3", "YU12"])
def test_raw_images_become_frames(fourcc: str) -> None:
    """What cameras send is read for real, bytes by bytes."""
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[:, 80:] = 200
    decoder = ImageDecoder(shots(iter(()), fourcc))
    for _ in range(3):
        [frame] = decoder.frames(as_bytes(picture, fourcc))
        pixels = frame.to_ndarray(format="rgb24")
        assert pixels.shape == (120, 160, 3)
        assert abs(pixels[:, :76].mean()) < 6
        assert abs(pixels[:, 84:].mean() - 200) < 6


def test_padded_rows_are_cut() -> None:
    """Some drivers round a row up to 64 bytes or more."""
    rows = np.frombuffer(as_bytes(np.full((120, 160, 3), 90, np.uint8), "YUYV"), np.uint8).reshape(120, 320)
    padded = np.pad(rows, ((0, 0), (0, 64))).tobytes()
    [frame] = ImageDecoder(shots(iter(()), "YUYV", stride=384)).frames(padded)
    assert abs(frame.to_ndarray(format="rgb24").astype(int) - 90).max() < 4


def test_a_format_that_nobody_reads_is_said() -> None:
    """Scientific cameras have their own."""
    with pytest.raises(DeviceLost, match="Y16X"):
        ImageDecoder(shots(iter(()), "Y16X"))


def test_damaged_images_are_counted_and_left_out() -> None:
    """Cheap cables lose bytes, and the next image is a good one."""
    began = time.monotonic()
    good = as_bytes(moving(1)[0], "MJPG")

    def images() -> Iterator[Image | None]:
        for k in range(30):
            yield Image({0: b"", 1: b"noise", 2: good}[k % 3], began + k / 30)

    losses = Losses()
    assert len(read(Cable(images), 10, losses, began)) == 10
    assert losses.counts["video_errors"] >= 10


def test_an_unplugged_camera_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """Counted and logged once, tried until it is there, and the time between is missing, not squeezed out."""
    caplog.set_level(logging.INFO)
    began = time.monotonic()
    gone = DeviceLost("the camera /dev/video9 was unplugged: plug it in again")
    absent = DeviceLost("there is no camera /dev/video9: plug it in")
    cable = Cable(filming(began, 0, 30, then=gone), absent, absent, filming(began, 90, 121))
    losses = Losses()
    pictures = read(cable, 30, losses, began)
    assert losses.counts["camera_lost"] == 1
    assert losses.counts["missing_pictures"] == 30
    assert [p.start for p in pictures] == pytest.approx([*np.arange(15) / 15, *(3 + np.arange(15) / 15)])
    assert [p.pixels.mean() for p in pictures] == pytest.approx([40 + 30 * p.start for p in pictures], abs=3)
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "unplugged" in line]) == 1
    assert lines[-1] == "the camera is back"
    assert (cable.opened, cable.closed) == (4, 2)


def test_an_absent_camera_is_waited_for() -> None:
    """Boot order is not ours: the camera may appear after the agent."""
    began = time.monotonic()
    cable = Cable(DeviceLost("absent"), DeviceLost("absent"), filming(began, 0, 10))
    assert len(read(cable, 3, Losses(), began)) == 3


def test_waiting_ends_when_it_is_told_to() -> None:
    """No backoff outlives the agent."""
    stop = threading.Event()
    cable = Cable(DeviceLost("absent"))
    source = camera("/dev/video9", Reading(), Losses(), began=0, open_camera=cable, first_wait=60)
    threading.Timer(0.05, stop.set).start()
    begun = time.monotonic()
    assert list(source(stop)) == []
    assert time.monotonic() - begun < 10


def test_what_will_never_work_is_not_tried_again() -> None:
    """A missing library does not come by waiting."""

    def broken(device: str, wish: Wish) -> Cable:
        raise MediaError("cameras need linuxpy")

    with pytest.raises(MediaError, match="linuxpy"):
        next(camera("/dev/video9", Reading(), Losses(), began=0, open_camera=broken)(threading.Event()))


@pytest.mark.parametrize(
    ("modes", "best"),
    [
        ([Mode("MJPG", 1920, 1080, 30), Mode("MJPG", 640, 480, 30)], Mode("MJPG", 640, 480, 30)),
        ([Mode("MJPG", 640, 480, 30), Mode("YUYV", 640, 480, 30)], Mode("YUYV", 640, 480, 30)),
        ([Mode("MJPG", 640, 480, 30), Mode("YUYV", 640, 480, 5)], Mode("MJPG", 640, 480, 30)),
        ([Mode("YUYV", 160, 120, 30), Mode("YUYV", 320, 240, 30)], Mode("YUYV", 320, 240, 30)),
        ([Mode("YUYV", 80, 60, 30), Mode("YUYV", 160, 120, 30)], Mode("YUYV", 160, 120, 30)),
        ([Mode("YUYV", 320, 240, 0), Mode("H264", 1280, 720, 30)], Mode("YUYV", 320, 240, 0)),
        ([Mode("Z16 ", 320, 240, 30)], None),
        ([], None),
    ],
)
def test_the_modest_mode_is_chosen(modes: list[Mode], best: Mode | None) -> None:
    """Large enough, fast enough, and then the least work."""
    assert chosen_mode(modes, WISH) == best


def test_a_stamp_of_another_clock_is_not_believed() -> None:
    """Some drivers stamp with the wall clock, or not at all."""
    assert taken_at(99.5, 100.0) == 99.5
    assert taken_at(1.7e9, 100.0) == 100.0
    assert taken_at(0.0, 100.0) == 100.0
