"""From padded blocks to samples: padding goes, alignment stays, scales are those of the train rows."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from megace2_iot.datasets.sequences import Row, blocks_of, dataset_of, trimmed


def padded(front: int, steps: int, back: int, width: int = 2) -> np.ndarray:
    """Ones between zeros."""
    return np.concatenate([np.zeros((front, width)), np.ones((steps, width)), np.zeros((back, width))])


def test_padding_is_cut_on_both_sides() -> None:
    """MulT pads before, MMSA after; a step of zeros inside is a step."""
    inside = padded(1, 3, 2)
    inside[2] = 0.0
    cut = trimmed({"text": padded(4, 3, 0), "audio": inside})
    assert {m: len(block) for m, block in cut.items()} == {"text": 3, "audio": 3}


def test_aligned_blocks_are_cut_together() -> None:
    """The third step of one is the third step of all, though its own first steps are zeros."""
    text, vision = padded(2, 6, 0), padded(4, 3, 1)
    cut = trimmed({"text": text, "vision": vision})
    assert {m: len(block) for m, block in cut.items()} == {"text": 6, "vision": 6}
    assert cut["vision"][:2].sum() == 0.0


def test_a_block_of_zeros_is_no_modality() -> None:
    """Nothing was measured, so nothing is made of it."""
    assert trimmed({"text": padded(1, 2, 0), "vision": np.zeros((3, 4))}).keys() == {"text"}


def test_lengths_of_the_file_come_first() -> None:
    """BERT's vectors of padding are not zero: its mask tells."""
    cut = trimmed({"text": np.ones((8, 2)), "audio": padded(0, 3, 2)}, {"text": 5})
    assert {m: len(block) for m, block in cut.items()} == {"text": 5, "audio": 3}


def test_scales_are_those_of_the_train_rows() -> None:
    """Audio has mean 0 and spread 1 over the train steps and is clipped elsewhere; text is left alone."""
    rng = np.random.default_rng(0)
    rows = [
        Row(f"{split}{i}", split, split, float(i), 0.0, {"text": 7.0 * padded(0, 4, 0), "audio": scale * block})
        for split, scale in (("train", 9.0), ("test", 900.0))
        for i, block in enumerate(rng.standard_normal((5, 6, 3)))
    ]
    dataset = dataset_of("d", rows)
    audio = np.concatenate([s.features["audio"].values for s in dataset.split("train")])
    np.testing.assert_allclose(audio.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(audio.std(axis=0), 1.0, atol=1e-5)
    assert max(np.abs(s.features["audio"].values).max() for s in dataset.split("test")) == 5.0
    assert dataset.samples[0].features["text"].values.max() == 7.0
    assert dataset.notes == ("audio is standardised by the train rows, and clipped at 5 deviations",)


def test_a_file_is_not_held_twice() -> None:
    """What a row was made of is gone when the next one is read: MOSEI's sentences have half a GB of vectors."""
    made: list[weakref.ref[np.ndarray]] = []

    def rows() -> Iterator[Row]:
        for i in range(4):
            block = np.ones((3, 2))
            made.append(weakref.ref(block))
            yield Row(f"r{i}", "g", "train", float(i), 0.0, {"text": block})
            del block
            assert sum(one() is not None for one in made) == 1

    assert len(dataset_of("d", rows()).samples) == 4


def test_modalities_share_one_clock() -> None:
    """All cover the time of the sample: its length where the file has it, else that of its words at 2.5 a second."""
    blocks = {"text": padded(0, 5, 0), "audio": padded(0, 50, 0)}
    known, guessed = dataset_of(
        "d", [Row("a", "v", "train", 3.0, 0.0, blocks, seconds=4.0), Row("b", "v", "train", 9.0, 0.0, blocks)]
    ).samples
    assert (known.features["text"].rate, known.features["audio"].rate) == (1.25, 12.5)
    assert (guessed.features["text"].rate, guessed.features["audio"].rate) == (2.5, 25.0)
    assert known.features["audio"].start == 3.0


def test_samples_are_in_order_of_time_and_those_of_nothing_are_left_out() -> None:
    """Groups as the file first names them, each together; what has no features is counted."""
    block = {"text": padded(0, 2, 0)}
    rows = [
        Row("b2", "b", "train", 2.0, 0.0, block),
        Row("a1", "a", "train", 1.0, None, block),
        Row("b1", "b", "train", 1.0, 0.0, block),
        Row("none", "a", "train", 5.0, 0.0, {"text": np.full((3, 2), np.nan)}),
    ]
    dataset = dataset_of("d", rows)
    assert [s.id for s in dataset.samples] == ["b1", "b2", "a1"]
    assert dataset.notes[-1] == "1 samples without any features were left out"
    with pytest.raises(ValueError, match="d holds no features"):
        dataset_of("d", rows[3:])


def test_blocks_that_do_not_fit_are_told() -> None:
    """Another number of rows, another rank, another type, another width."""
    for block, found in (
        (np.zeros((3, 2, 2)), r"\(3, 2, 2\) of float64"),
        (np.zeros((2, 2)), r"\(2, 2\)"),
        (np.array([[["a"]], [["b"]]]), "of <U1"),
    ):
        with pytest.raises(ValueError, match=f"train: audio is .*{found}.*, expected \\(2, T, D\\) of numbers|{found}"):
            blocks_of({"audio": block}, 2, "train")
    rows = [Row(str(w), "v", "train", 0.0, 0.0, {"text": padded(0, 2, 0, w)}) for w in (2, 3)]
    with pytest.raises(ValueError, match="text is 2, 3 wide"):
        dataset_of("d", rows)
