"""linuxpy as it is used here, on a kernel that is a fake."""

from __future__ import annotations

import errno
import itertools
import time
from pathlib import Path
from types import SimpleNamespace

import linuxpy.ioctl
import numpy as np
import pytest
from fake_kernel import FakeCamera
from linuxpy.video import raw
from test_camera import WISH, as_bytes

from device_agent.media.images import ImageDecoder
from device_agent.media.reconnecting import DeviceLost
from device_agent.media.video4linux import open_video4linux

MODES = [("MJPG", 1920, 1080, 30), ("MJPG", 640, 480, 30), ("YUYV", 320, 240, 30), ("YUYV", 640, 480, 5)]
PICTURES = [np.full((240, 320, 3), 30 * k, np.uint8) for k in range(6)]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCamera:
    """A camera with these modes that is unplugged after six images."""
    made = FakeCamera(tmp_path / "video9", MODES, [as_bytes(picture, "YUYV") for picture in PICTURES])
    monkeypatch.setattr(linuxpy.ioctl, "fcntl", SimpleNamespace(ioctl=made.ioctl))
    return made


def test_images_come_until_the_camera_is_unplugged(fake: FakeCamera) -> None:
    """The whole way: capabilities, modes, format, rate, mapped buffers, images with their times, loss."""
    with open_video4linux(str(fake.path), WISH) as shots:
        assert (shots.fourcc, shots.width, shots.height, shots.rate) == ("YUYV", 320, 240, 30.0)
        assert fake.streaming
        decoder = ImageDecoder(shots)
        for picture, image in zip(PICTURES, itertools.islice(shots.images, 6), strict=True):
            assert image is not None
            assert abs(image.at - time.monotonic()) < 1
            [frame] = decoder.frames(image.data)
            assert abs(frame.to_ndarray(format="rgb24").mean() - picture.mean()) < 3
    assert fake.queued


def test_unplugging_is_said(fake: FakeCamera) -> None:
    """And closing what is gone does not hide it."""
    with pytest.raises(DeviceLost, match="was unplugged"), open_video4linux(str(fake.path), WISH) as shots:
        list(shots.images)


def test_a_busy_camera_is_said(fake: FakeCamera) -> None:
    """Only one program has a camera."""
    fake.busy = True
    with pytest.raises(DeviceLost, match="in use"), open_video4linux(str(fake.path), WISH):
        pass


def test_a_node_that_is_no_camera_is_said(fake: FakeCamera) -> None:
    """A USB camera has two nodes, and the second gives only numbers about the pictures."""
    fake.capabilities = raw.Capability.META_CAPTURE | raw.Capability.STREAMING
    with pytest.raises(DeviceLost, match="another /dev/video"), open_video4linux(str(fake.path), WISH):
        pass


def test_a_camera_without_a_known_format_is_said(fake: FakeCamera) -> None:
    """Depth cameras give distances."""
    fake.modes = [("Z16 ", 640, 480, 30)]
    with pytest.raises(DeviceLost, match="Z16"), open_video4linux(str(fake.path), WISH):
        pass


def test_an_absent_camera_is_said(tmp_path: Path) -> None:
    """With how to see which there are."""
    with pytest.raises(DeviceLost, match="ls /dev/video"), open_video4linux(str(tmp_path / "video7"), WISH):
        pass


def test_a_silent_camera_gives_signs_of_life_and_then_up(fake: FakeCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that hangs says nothing: after a while the camera is opened again."""
    now = itertools.count(100.0, 2.0)
    monkeypatch.setattr("device_agent.media.video4linux.select", SimpleNamespace(select=lambda *_: ([], [], [])))
    monkeypatch.setattr("device_agent.media.video4linux.time", SimpleNamespace(monotonic=lambda: next(now)))
    with open_video4linux(str(fake.path), WISH) as shots:
        assert next(shots.images) is None
        with pytest.raises(DeviceLost, match="no image for 5 s"):
            list(shots.images)


def test_a_driver_may_refuse_a_rate(fake: FakeCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many have one rate and no way to set it."""

    def refuse(asked: object) -> None:
        raise OSError(errno.ENOTTY, "no")

    monkeypatch.setattr(fake, "s_parm", refuse)
    monkeypatch.setattr(fake, "g_parm", refuse)
    with open_video4linux(str(fake.path), WISH) as shots:
        assert shots.rate is None
        assert next(shots.images) is not None
