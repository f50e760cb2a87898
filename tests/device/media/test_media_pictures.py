"""Pictures of any file, small, upright and at one rate."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from written_media import moving, sound_frames, tone, write_film, write_pictures

from device_agent.media.chunks import Losses, Picture
from device_agent.media.files import probe, read_file
from device_agent.media.reading import Reading

KINDS = [
    ("mpeg4", "yuv420p", 160, 120, "mp4"),
    ("libx264", "yuv444p", 161, 121, "mp4"),
    ("libx264", "yuv420p10le", 64, 64, "mkv"),
    ("libvpx-vp9", "yuv420p", 160, 90, "webm"),
    ("mjpeg", "yuvj420p", 160, 120, "avi"),
    ("rawvideo", "rgb24", 35, 21, "avi"),
    ("png", "rgb24", 31, 31, "mov"),
    ("ffv1", "gray", 33, 77, "mkv"),
    ("ffv1", "yuva420p", 32, 32, "mkv"),
]
EVERY_25TH = [k / 25 for k in range(50)]


def pictures(path: Path, reading: Reading | None = None, losses: Losses | None = None) -> list[Picture]:
    return [chunk for chunk in read_file(path, reading, losses) if isinstance(chunk, Picture)]


@pytest.mark.parametrize(("codec", "pixels", "width", "height", "suffix"), KINDS)
def test_each_picture_is_the_one_of_its_time(
    tmp_path: Path, codec: str, pixels: str, width: int, height: int, suffix: str
) -> None:
    """Any codec, pixel format and odd size gives RGB of even size, showing the frame at or before its tick."""
    path = write_pictures(
        tmp_path / f"film.{suffix}", moving(50, width, height), EVERY_25TH, codec=codec, pixels=pixels
    )
    losses = Losses()
    made = pictures(path, losses=losses)
    assert [p.start for p in made] == pytest.approx([k / 15 for k in range(30)])
    for picture in made:
        frame = int(picture.start * 25 + 1e-3)
        assert abs(picture.pixels.mean() - round(10 + 4 * frame)) < 5
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.shape[1:] == (80, 3)
        assert picture.pixels.shape[0] % 2 == 0
    assert abs(made[0].pixels.shape[0] - 80 * height / width) <= 1
    assert not any(losses.counts.values())


@pytest.mark.parametrize(("width", "height", "shape"), [(224, 224, (224, 224, 3)), (32, None, (24, 32, 3))])
def test_the_caller_says_the_size(tmp_path: Path, width: int, height: int | None, shape: tuple[int, int, int]) -> None:
    """A network wants its square, whatever the camera's shape."""
    path = write_pictures(tmp_path / "film.mp4", moving(10), EVERY_25TH[:10])
    assert pictures(path, Reading(width=width, height=height))[0].pixels.shape == shape


def test_variable_rates_keep_their_times(tmp_path: Path) -> None:
    """Telephones lower their rate in the dark: a picture is found by its stamp, not by its number."""
    times = [k / 30 for k in range(30)] + [1 + k / 12 for k in range(12)]
    path = write_pictures(tmp_path / "variable.mkv", moving(42), times, codec="ffv1")
    made = pictures(path)
    assert len(made) == 30
    for picture in made:
        shown = max(k for k, time in enumerate(times) if time <= picture.start + 1e-3)
        assert abs(picture.pixels.mean() - round(10 + 200 * shown / 42)) < 4


def test_a_gap_is_counted(tmp_path: Path) -> None:
    """What nobody saw is missing; quality indicators are made of it."""
    times = [k / 25 + (1.0 if k >= 25 else 0.0) for k in range(50)]
    losses = Losses()
    made = pictures(write_pictures(tmp_path / "gap.mkv", moving(50), times), losses=losses)
    assert losses.counts["missing_pictures"] == 13
    assert len(made) + 13 == 45
    assert not [p for p in made if 1.13 < p.start < 1.99]


@pytest.mark.parametrize(
    ("matrix", "corner", "shape"),
    [
        ((0, 1, 0, -1, 0, 0), (0, -1), (160, 80, 3)),
        ((-1, 0, 0, 0, -1, 0), (-1, -1), (40, 80, 3)),
        ((0, -1, 0, 1, 0, 0), (-1, 0), (160, 80, 3)),
    ],
)
def test_films_of_telephones_are_upright(
    tmp_path: Path, matrix: tuple[int, ...], corner: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    """A telephone held upright writes pictures lying down, and how to turn them: no face is found in one that lies."""
    lit = np.zeros((60, 120, 3), np.uint8)
    lit[:30, :60] = 255  # the upper left
    data = bytearray(write_pictures(tmp_path / "film.mp4", [lit] * 5, EVERY_25TH[:5]).read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version, times and ids, reserved, layer to volume
    data[at : at + 24] = struct.pack(">6i", *(value << 16 for value in matrix))
    (tmp_path / "turned.mp4").write_bytes(data)
    pixels = pictures(tmp_path / "turned.mp4")[0].pixels
    assert pixels.shape == shape
    assert pixels[corner].mean() > 200
    assert pixels.mean() < 80


def test_a_cover_is_no_film(tmp_path: Path) -> None:
    """A song with a picture on its sleeve has no pictures to read a face from."""
    assert not probe(_song_with_cover(tmp_path / "song.mp3")).has_pictures
    assert not pictures(tmp_path / "song.mp3")


def _song_with_cover(path: Path) -> Path:
    with av.open(str(path), "w", format="mp3") as container:
        voice = container.add_stream("libmp3lame", rate=16_000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(moving(1, 32, 32)[0]).reformat(format="yuvj420p")))
        container.mux(cover.encode(None))
        for frame in [*sound_frames(tone(1, 16_000, 0, 1), 16_000, "mono", voice.codec_context.format.name), None]:
            container.mux(voice.encode(frame))
    return path


def test_a_file_is_known_before_it_is_read(tmp_path: Path) -> None:
    """Sizes, rates and codecs are told without decoding."""
    found = probe(write_film(tmp_path / "film.mp4"))
    assert (found.sound_codec, found.sound_rate, found.channels) == ("mp3float", 44_100, 1)
    assert (found.picture_codec, found.picture_rate, found.width, found.height) == ("mpeg4", 25.0, 160, 120)
    assert found.duration == pytest.approx(2.0, abs=0.05)


def test_real_clips_give_15_pictures_a_second(data_folder: Path) -> None:
    """MPEG-1 and H.264, as people recorded them."""
    for path in [*sorted((data_folder / "clips").glob("*.mpg")), *(data_folder / "clips").glob("*.mp4")]:
        losses, found = Losses(), probe(path)
        made = pictures(path, losses=losses)
        assert found.duration is not None
        assert abs(len(made) - 15 * found.duration) <= 1
        assert 20 < np.mean([p.pixels.mean() for p in made]) < 230
        assert not any(losses.counts.values())
        assert set(losses.seconds) >= {"demux", "decode_video", "scale"}
