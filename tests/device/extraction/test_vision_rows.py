"""Rows of pictures: exact on simple ones, alike in any size, one for each step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from device_agent.extraction.picture import grid, look, orientations, resized
from device_agent.extraction.rows import Rows
from device_agent.extraction.vision import VisionExtractor, describe
from device_agent.media.chunks import Picture, Words

GREY = np.full((60, 80, 3), 128, np.uint8)


def _row(pixels: np.ndarray) -> np.ndarray:
    return describe(look(pixels), None)


def _stripes(across: bool, period: int = 16) -> np.ndarray:
    """Waves of luma from left to right, or from top to bottom."""
    along = np.arange(80)[None, :] if across else np.arange(60)[:, None]
    wave = 128 + 80 * np.sin(2 * np.pi * along / period)
    return np.broadcast_to(wave[..., None], (60, 80, 3)).astype(np.uint8)


def _all(extractor: VisionExtractor, pictures: list[Picture]) -> Rows:
    return Rows.join([rows for picture in pictures if (rows := extractor.push(picture)) is not None])


def test_a_plain_picture() -> None:
    """Grey has middle luma, no colour, no contrast, no orientation, no motion, no detail."""
    row = _row(GREY)
    assert row[:16] == pytest.approx((128 / 255 - 0.5) / 0.25, abs=1e-5)
    assert row[16:18] == pytest.approx(0.0, abs=1e-4)
    assert row[18] == pytest.approx(-2.0, abs=1e-4)
    assert row[19:32] == pytest.approx(0.0, abs=1e-3)
    assert row[32] == pytest.approx(np.log(0.01) / 2, abs=1e-3)
    assert row[33:] == pytest.approx([(128 / 255 - 0.5) / 0.25, -1.0], abs=1e-5)


def test_colours() -> None:
    """BT.601's Cb and Cr of pure red and blue, which are fully saturated."""
    red, blue = np.zeros_like(GREY), np.zeros_like(GREY)
    red[..., 0], blue[..., 2] = 255, 255
    assert _row(red)[[16, 17, 33, 34]] == pytest.approx([-1.686, 5.0, (0.299 - 0.5) / 0.25, 4.0], abs=0.01)
    assert _row(blue)[[16, 17, 33, 34]] == pytest.approx([5.0, -0.813, (0.114 - 0.5) / 0.25, 4.0], abs=0.01)


def test_the_grid_is_row_by_row() -> None:
    """A white corner is the first number, and the last cell is at the bottom right."""
    corner = np.zeros_like(GREY)
    corner[:15, :20], corner[45:, 60:] = 255, 128
    cells = _row(corner)[:16] * 0.25 + 0.5
    assert cells == pytest.approx([1.0, *[0.0] * 14, 128 / 255], abs=1e-5)
    assert grid(np.arange(4800, dtype=np.float32).reshape(60, 80), 2, 2)[1] > 0


@pytest.mark.parametrize(("across", "bin"), [(True, 0), (False, 4)])
def test_edges_have_their_orientation(across: bool, bin: int) -> None:
    """Upright edges are the first of eight bins, level ones the fifth, diagonal ones between."""
    assert orientations(look(_stripes(across)).luma).argmax() == bin
    assert orientations(look(_stripes(across)).luma)[bin] > 0.95
    down, right = np.mgrid[:60, :80]
    diagonal = (128 + 80 * np.sin((down + right) / 3))[..., None].repeat(3, 2).astype(np.uint8)
    assert orientations(look(diagonal).luma).argmax() == 2
    assert orientations(look(diagonal[:, ::-1]).luma).argmax() == 6


def test_motion_is_where_it_is() -> None:
    """A quarter that turns from black to white moves by 1 there, 1/4 in all, and not once it is white."""
    black, quarter = np.zeros_like(GREY), np.zeros_like(GREY)
    quarter[:30, 40:] = 255
    pictures = [Picture(pixels, i / 15) for i, pixels in enumerate([black, quarter, quarter])]
    rows = _all(VisionExtractor(), pictures).values[:, 27:32]
    assert not rows[0].any()
    assert np.expm1(rows[1]) / 50 == pytest.approx([0, 1, 0, 0, 0.25], abs=1e-4)
    assert not rows[2].any()


def test_a_new_scene_is_no_motion() -> None:
    """After more than a second without pictures there is nothing to compare with, nor after a flush."""
    extractor = VisionExtractor()
    rows = _all(extractor, [Picture(GREY, 0.0), Picture(GREY // 2, 1.5), Picture(GREY, 2.0)])
    assert [bool(row[31]) for row in rows.values] == [False, False, True]
    assert extractor.flush() is None
    assert not _all(extractor, [Picture(GREY // 4, 2.1)]).values[0, 31]


def test_any_size_looks_alike(clip_pictures: Callable[[str], list[Picture]]) -> None:
    """A picture twice as large is nearly the same row, and a size that changes is no motion."""
    small = clip_pictures("bbaf2n.mpg")[10].pixels
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(_row(large), _row(small), atol=2e-3)
    rows = _all(VisionExtractor(), [Picture(small, 0.0), Picture(large, 0.07), Picture(large[:, ::2], 0.14)])
    assert rows.values[1:, 27:32] == pytest.approx(0.0, abs=0.2)
    for shape in ((1, 1), (1, 500), (3, 7), (480, 640), (59, 81)):
        row = _row(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8))
        assert row.shape == (35,) and np.isfinite(row).all()


def test_resizing_keeps_means() -> None:
    """Areas: every pixel counts alike, and the same size is left as it is."""
    plane = np.random.default_rng(0).random((7, 13)).astype(np.float32)
    for size in ((60, 80), (3, 5), (1, 1), (7, 13)):
        assert resized(plane, *size).mean() == pytest.approx(plane.mean(), rel=1e-4)
    np.testing.assert_allclose(resized(np.arange(8, dtype=np.float32).reshape(2, 4), 1, 2), [[2.5, 4.5]])


def test_blur_is_seen(clip_pictures: Callable[[str], list[Picture]]) -> None:
    """On real pictures detail falls to a tenth or less by a blur of 3 pixels' radius; noise alone has the most."""
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 2) ** 2)
    for name in ("bbaf2n.mpg", "Oz06ZWiO20M_6.mp4"):
        pixels = clip_pictures(name)[20].pixels
        soft = pixels.astype(np.float64)
        for axis in (0, 1):
            padded = np.pad(soft, [(6, 6) if axis == a else (0, 0) for a in range(3)], mode="edge")
            soft = np.apply_along_axis(np.convolve, axis, padded, kernel / kernel.sum(), "valid")
        assert 0.05 < look(pixels).sharpness < 1.0
        assert look(soft.astype(np.uint8)).sharpness < 0.1 * look(pixels).sharpness
    assert look(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).sharpness > 10


def test_dark_and_bright_parts() -> None:
    """Black bars and burnt-out windows, by area."""
    pixels = GREY.copy()
    pixels[:15], pixels[30:36] = 5, 250
    rows = _all(VisionExtractor(), [Picture(pixels, 0.0)])
    assert rows.observed["dark"].tolist() == pytest.approx([0.25])
    assert rows.observed["bright"].tolist() == pytest.approx([0.1])


@pytest.mark.parametrize("source", [15, 25, 29.97, 30, 60])
def test_each_step_has_one_row(source: float) -> None:
    """A camera's jitter loses no step, whatever its rate."""
    rng = np.random.default_rng(0)
    times = np.arange(0, 10, 1 / source)
    jitter = rng.uniform(-0.2, 0.2, len(times)) / max(source, 15)
    rows = _all(VisionExtractor(15.0), [Picture(GREY, float(at)) for at in times + jitter])
    assert 148 <= len(rows) <= 151
    assert np.diff(rows.times).max() < 0.13


def test_a_lost_picture_is_a_missing_row() -> None:
    """And one that is late or comes twice is none."""
    extractor = VisionExtractor(10.0)
    rows = _all(extractor, [Picture(GREY, at) for at in (0.0, 0.1, 0.1, 0.4, 0.2, 0.5)])
    assert rows.times.tolist() == [0.0, 0.1, 0.4, 0.5]
    assert rows.step == 0.1
    assert extractor.push(Words("hello", 0.0, 1.0)) is None


@pytest.mark.parametrize("name", ["bbaf2n.mpg", "Oz06ZWiO20M_6.mp4"])
def test_real_pictures(clip_pictures: Callable[[str], list[Picture]], name: str) -> None:
    """15 rows a second of unit scale; a talking head moves a little."""
    pictures = clip_pictures(name)
    rows = _all(VisionExtractor(), pictures)
    assert len(rows) == pytest.approx(15 * (pictures[-1].start - pictures[0].start), abs=2)
    assert np.abs(rows.values).max() < 4
    assert 0 < np.median(rows.values[1:, 31]) < 1
