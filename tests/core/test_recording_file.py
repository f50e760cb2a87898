"""Recorded streams: what was stored comes back, a cut end is an end, damage is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from megace2_iot.messages import FeaturePacket, PacketWindow
from megace2_iot.quantize import quantize
from megace2_iot.recording import Recorder, is_recording, load_or_read, read_recording


def packet(seq: int = 1, score: float | None = None, stem: str | None = None) -> bytes:
    sequence = quantize(np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3), 0.01).to_fields()
    window = PacketWindow(seq=seq, captured_at=0.0, sequences={"text": sequence}, score=score)
    stage = "features" if stem is None else "embedded"
    made = {"device": "cam", "epoch": 1, "sent_at": 0.0, "stage": stage, "stem": stem, "windows": (window,)}
    return FeaturePacket.model_validate(made).encode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two devices, three packets."""
    with Recorder(tmp_path / "stream.rec") as recorder:
        recorder.add(100.0, "cam", packet(1))
        recorder.add(100.5, "mic", packet(1, 2.0, "a" * 64))
        recorder.add(102.0, "cam", packet(2))
    return tmp_path / "stream.rec"


def test_a_stream_comes_back_on_its_own_clock(file: Path) -> None:
    """A group a device, labelled windows as train rows, Z[0] with the stem that made it."""
    dataset = read_recording(file)
    assert is_recording(str(file))
    assert [(s.group, s.start, s.split, s.score) for s in dataset.samples] == [
        ("cam", 0.0, "test", None),
        ("cam", 2.0, "test", None),
        ("mic", 0.5, "train", 2.0),
    ]
    assert [s.stem for s in dataset.samples] == [None, None, "a" * 64]
    assert dataset.dims == {"text": 3}
    assert dataset.samples[0].features["text"].values == pytest.approx(np.linspace(0, 1, 12).reshape(4, 3), abs=0.02)


def test_a_recording_is_split_like_any_data_set(file: Path) -> None:
    """By the same options, except for words, which it does not hold."""
    again = load_or_read(str(file), 3, split="random")
    assert again.notes[-2:] == ("split at random by sample, 70/10/20, seed 3", "1 speakers are on several sides")
    assert load_or_read("synthetic", 3, split="speaker").notes[-1] == "split by speaker, about 70/10/20, seed 3"
    with pytest.raises(ValueError, match="a recording holds no text"):
        load_or_read(str(file), vectors=file)


@pytest.mark.parametrize("cut", [1, 3, 30])
def test_a_recorder_that_was_killed_leaves_what_it_had(file: Path, cut: int) -> None:
    """The record that was being written is the end."""
    file.write_bytes(file.read_bytes()[:-cut])
    assert len(read_recording(file).samples) == 2


def test_damage_is_told(file: Path) -> None:
    """With the file's name and what is wrong."""
    data = bytearray(file.read_bytes())
    data[12:14] = b"??"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"stream\.rec is damaged: not a Mega-CE2 message"):
        read_recording(file)


def test_a_recording_without_a_packet_is_told(tmp_path: Path) -> None:
    """There is nothing to play."""
    with Recorder(tmp_path / "empty.rec"):
        pass
    with pytest.raises(ValueError, match="holds no packet"):
        read_recording(tmp_path / "empty.rec")


def test_a_recording_is_never_overwritten(file: Path) -> None:
    """Nor is another file."""
    before = file.read_bytes()
    with pytest.raises(FileExistsError):
        Recorder(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"M2", b"PK\x03\x04" * 9])
def test_another_file_is_no_recording(tmp_path: Path, content: bytes) -> None:
    """It may be a data set."""
    (tmp_path / "x").write_bytes(content)
    assert not is_recording(str(tmp_path / "x"))
    assert not is_recording(str(tmp_path / "absent"))
