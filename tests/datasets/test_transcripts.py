"""Text with scores in a .csv: the columns of CMU-MOSEI's and MMSA's label files."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from megace2_iot.datasets import load
from megace2_iot.datasets.transcripts import load_transcripts

MOSEI = """video_id,clip_id,text,label,mode
abc,119_919,"They've been able, to find ""solutions"".",0.6666667,train
abc,4_84,Key Polymer brings a technical aspect.,-1.0,train
xyz,0_0,It is bad.,-3.0,valid
uvw,3_5,Good.,,test
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mosei.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_of_mosei(tmp_path: Path) -> None:
    """Starts in seconds behind an underscore, clips in order of time, an empty label is no score."""
    dataset = load_transcripts(written(tmp_path, MOSEI))
    assert dict(dataset.dims) == {"text": 128}
    assert [(s.id, s.start, s.split, s.score) for s in dataset.samples] == [
        ("abc-4_84", 4.84, "train", -1.0),
        ("abc-119_919", 119.919, "train", pytest.approx(0.6666667)),
        ("xyz-0_0", 0.0, "valid", -3.0),
        ("uvw-3_5", 3.5, "test", None),
    ]
    assert [len(s.features["text"].values) for s in dataset.samples] == [6, 6, 3, 1]


def test_the_file_of_mmsa(tmp_path: Path) -> None:
    """Clips by number, five seconds apart, and columns that nobody needs; a mark at the file's begin is no letter."""
    dataset = load_transcripts(
        written(
            tmp_path,
            "\ufeffvideo_id,clip_id,text,label,annotation,mode\nv,1,So good,2,Positive,train\nv,0,A,0,,train\n",
        )
    )
    assert [(s.id, s.start) for s in dataset.samples] == [("v-0", 0.0), ("v-1", 5.0)]


def test_text_and_score_alone(tmp_path: Path) -> None:
    """Without videos each row is a group; without a split it is dealt, and said."""
    rows = "".join(f"word number {i},{i % 7 - 3}\n" for i in range(50))
    dataset = load_transcripts(written(tmp_path, "Text,Score\n" + rows))
    assert len({s.group for s in dataset.samples}) == 50
    assert [len(dataset.split(split)) for split in ("train", "valid", "test")] == [35, 5, 10]
    assert dataset.notes[1:] == (
        "videos are not named: each sample is a group",
        "split by speaker, about 70/10/20, seed 0",
    )


def test_sentences_are_as_small_as_their_words(tmp_path: Path) -> None:
    """A device holds MOSEI's: as vectors these would be 20 MB."""
    path = written(tmp_path, "text,score\n" + "".join(f"{'a good film ' * 13}{i % 10},1\n" for i in range(1000)))
    tracemalloc.start()
    dataset = load_transcripts(path)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(s.features["text"].values.nbytes for s in dataset.samples) > 20e6
    assert held < 4e6


def test_words_come_from_a_file(tmp_path: Path) -> None:
    """A row of which no word is known has no text, and is left out."""
    vectors = tmp_path / "glove.txt"
    vectors.write_text("good 1 2\nbad 3 4\n")
    dataset = load(written(tmp_path, MOSEI), vectors=vectors)
    assert dict(dataset.dims) == {"text": 2}
    assert [s.features["text"].values.tolist() for s in dataset.samples] == [[[3.0, 4.0]], [[1.0, 2.0]]]
    assert dataset.notes == ("words are vectors of glove.txt", "2 samples without any features were left out")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the columns of nothing"),
        ("a,b\n1,2\n", "the columns a, b, and needs text and label"),
        ("text,label\n", "holds no text"),
        ("text,label\nhello\n", "line 2 has not 2 fields"),
        ("text,label\nhello,1,2\n", "line 2 has not 2 fields"),
        ("text,label\nhello,good\n", "row 1: could not convert"),
        ("text,label\nhello,9\n", "row 1: a score of 9"),
        ("text,label,mode\nhello,1,dev\n", "row 1: unknown split 'dev'"),
        ('text,label\n"' + "x" * 200_000 + '",1\n', "field larger than"),
        ('text,label\n"open', "cannot be read as a .csv"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, reason: str) -> None:
    """One kind of error, with the row where there is one."""
    with pytest.raises(ValueError, match=reason):
        load_transcripts(written(tmp_path, text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A file of another kind under this name."""
    path = tmp_path / "x.csv"
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(ValueError, match=r"cannot be read as a \.csv"):
        load_transcripts(path)


def test_the_large_replay(data_folder: Path) -> None:
    """CMU-MOSEI: 22,788 utterances of 3,217 videos, in the official split, none of them on two sides."""
    mosei = load(data_folder / "mosei_text.csv")
    assert [len(mosei.split(split)) for split in ("train", "valid", "test")] == [16274, 1861, 4653]
    assert len({s.group for s in mosei.samples}) == 3217
    assert len({s.id for s in mosei.samples}) == 22788
    assert max(len(s.features["text"].values) for s in mosei.samples) == 310
    assert all(np.isfinite(s.score or 0.0) for s in mosei.samples)
    assert not any(s.features_saw_label for s in mosei.samples)
