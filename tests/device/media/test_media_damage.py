"""Files that are cut, corrupted, empty, or not media at all."""

from __future__ import annotations

import itertools
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from written_media import moving, tone, write_film, write_pictures, write_sound

from device_agent.media.chunks import Losses, MediaError, Picture, Sound
from device_agent.media.files import probe, read_file
from device_agent.media.reading import Reading


def read(path: Path, reading: Reading | None = None) -> tuple[list[Sound], list[Picture], Losses]:
    losses = Losses()
    chunks = list(read_file(path, reading, losses))
    return [c for c in chunks if isinstance(c, Sound)], [c for c in chunks if isinstance(c, Picture)], losses


def in_order(chunks: list[Sound] | list[Picture]) -> bool:
    return all(a.start < b.start for a, b in itertools.pairwise(chunks))


@pytest.mark.parametrize("suffix", ["mkv", "avi", "mpg", "ts"])
def test_a_cut_file_is_used_up_to_the_cut(tmp_path: Path, suffix: str) -> None:
    """A battery that died loses the end, not the whole."""
    whole = write_film(tmp_path / f"film.{suffix}", seconds=4)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    sounds, pictures, _ = read(cut)
    assert 0.8 < sounds[-1].end < 3.2
    assert 12 < len(pictures) < 48


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi", "ts"])
def test_a_corrupted_file_is_used_where_it_decodes(tmp_path: Path, suffix: str, seed: int) -> None:
    """Flipped bytes cost pieces, which are counted or missing; what is left is in order and of sane values."""
    data = np.frombuffer(write_film(tmp_path / f"film.{suffix}", seconds=4).read_bytes(), np.uint8).copy()
    random = np.random.default_rng(seed)
    data[random.integers(len(data) // 4, len(data) * 7 // 8, 60)] ^= 0xFF
    bad = tmp_path / f"bad.{suffix}"
    bad.write_bytes(data.tobytes())
    sounds, pictures, losses = read(bad)
    assert sum(len(s.samples) for s in sounds) > 16_000 or len(pictures) > 15
    assert in_order(sounds)
    assert in_order(pictures)
    assert all(np.isfinite(s.samples).all() for s in sounds)
    assert max([0.0, *(s.end for s in sounds), *(p.start for p in pictures)]) < 10
    assert any(losses.counts.values())


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mpg", "mov", "ts", "avi"])
def test_any_damage_ends_in_chunks_or_a_sentence(tmp_path: Path, suffix: str) -> None:
    """Also of headers and to most of the bytes: no other exception, no hours of pictures out of a broken rate."""
    whole = np.frombuffer(write_film(tmp_path / f"film.{suffix}").read_bytes(), np.uint8)
    for seed in range(12):
        random = np.random.default_rng(seed)
        data, hits = whole.copy(), int(random.integers(1, 300))
        data[random.integers(0, len(data), hits)] = random.integers(0, 256, hits)
        (tmp_path / f"bad.{suffix}").write_bytes(data[: random.integers(1, len(data))].tobytes())
        try:
            sounds, pictures, _ = read(tmp_path / f"bad.{suffix}")
        except MediaError:
            continue
        assert in_order(sounds)
        assert in_order(pictures)
        assert len(pictures) < 1000


def test_a_real_clip_survives_damage(data_folder: Path, tmp_path: Path) -> None:
    """MPEG-1 of 1990s tools and H.264 of telephones, with a hole in the middle."""
    for name in ("bbaf2n.mpg", "Oz06ZWiO20M_6.mp4"):
        data = bytearray((data_folder / "clips" / name).read_bytes())
        middle = len(data) // 2
        data[middle : middle + 4000] = os.urandom(4000)
        (tmp_path / name).write_bytes(data)
        sounds, pictures, losses = read(tmp_path / name)
        assert sounds[-1].end > 2.8
        assert len(pictures) > 30
        assert any(losses.counts.values())


def test_what_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    """Each refusal names the file and a way out."""
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "letter.mp4").write_text("dear reader\n" * 500)
    (tmp_path / "letter.txt").write_text("dear reader\n" * 500)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://192.0.2.1/a.ts\n")
    film = write_film(tmp_path / "film.mp4").read_bytes()
    (tmp_path / "no_index.mp4").write_bytes(film[: len(film) // 2])
    expected = {
        "absent.mp4": "check its name",
        ".": "is a folder",
        "pipe": "live source",
        "empty.mp4": "is empty",
        "letter.mp4": "convert it",
        "letter.txt": "convert it",
        "list.m3u8": "convert it",
        "no_index.mp4": "cut off",
    }
    for name, advice in expected.items():
        for use in (probe, lambda path: list(read_file(path))):
            with pytest.raises(MediaError, match=advice) as raised:
                use(tmp_path / name)
            assert str(tmp_path / name) in str(raised.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_somebody_else_says_so(tmp_path: Path) -> None:
    """Permission is not damage."""
    path = write_sound(tmp_path / "tone.wav", tone(0.1, 8000, 0, 1), 8000)
    path.chmod(0)
    with pytest.raises(MediaError, match="who may read it"):
        probe(path)


def test_a_missing_codec_is_not_a_broken_file(tmp_path: Path) -> None:
    """The remedy is another: convert with the program that made it."""
    data = bytearray(write_sound(tmp_path / "tone.wav", tone(1, 8000, 0, 1), 8000).read_bytes())
    data[20:22] = b"\x34\x12"  # a WAVE format that nobody has
    (tmp_path / "odd.wav").write_bytes(data)
    with pytest.raises(MediaError, match="no decoder"):
        list(read_file(tmp_path / "odd.wav"))


@pytest.mark.parametrize("header_says", [0, 16_000])
def test_a_track_of_no_length_is_no_track(tmp_path: Path, header_says: int) -> None:
    """A recorder that was stopped at once writes a header and nothing else."""
    data = write_sound(tmp_path / "tone.wav", tone(1, 8000, 0, 1), 8000).read_bytes()
    at = data.index(b"data")
    (tmp_path / "none.wav").write_bytes(data[:at] + b"data" + struct.pack("<I", header_says))
    with pytest.raises(MediaError, match="record it again"):
        list(read_file(tmp_path / "none.wav"))


def test_a_stream_without_stamps_keeps_its_rhythm(tmp_path: Path) -> None:
    """Cameras of doors record bare H.264: a frame follows the other at the rate that it declares."""
    film = write_pictures(tmp_path / "film.h264", moving(50), [k / 25 for k in range(50)], codec="libx264")
    _, pictures, _ = read(film)
    assert abs(len(pictures) - 30) <= 2
    assert in_order(pictures)


def test_one_track_is_enough(tmp_path: Path) -> None:
    """A silent film and a song are both media; a wish for the other one is refused."""
    film = write_pictures(tmp_path / "film.mp4", moving(10), [k / 25 for k in range(10)])
    sounds, pictures, _ = read(film)
    assert (len(sounds), len(pictures)) == (0, 6)
    with pytest.raises(MediaError, match="neither"):
        read(film, Reading(pictures=False))


def test_an_abandoned_reader_closes_its_file(tmp_path: Path) -> None:
    """Whoever stops listening leaves no file open."""
    path = write_film(tmp_path / "film.mp4")
    before = len(os.listdir("/proc/self/fd"))
    reader = read_file(path)
    next(reader)
    assert len(os.listdir("/proc/self/fd")) > before
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_hour_is_read_in_constant_memory(tmp_path: Path) -> None:
    """A device has a few hundred MB; an hour of sound alone is 230 MB as floats."""
    path = tmp_path / "hour.wav"
    count = 3600 * 8000
    with path.open("wb") as file:  # u-law at 8 kHz, written as it would be recorded
        header = struct.pack(
            "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + count, b"WAVE", b"fmt ", 16, 7, 1, 8000, 8000, 1, 8, b"data", count
        )
        file.write(header)
        block = np.random.default_rng(0).integers(0, 255, 80_000, dtype=np.uint8).tobytes()
        for _ in range(count // len(block)):
            file.write(block)
    reader = read_file(path, Reading(denoise=False))
    next(reader)
    before, most, end = _resident(), 0, 0.0
    for number, chunk in enumerate(reader):
        end = chunk.end if isinstance(chunk, Sound) else end
        if number % 2000 == 0:
            most = max(most, _resident())
    assert end == pytest.approx(3600, abs=0.1)
    assert most - before < 20


def _resident() -> float:
    """MB that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
