"""The attacks of `experiment privacy` find what is there to be found, and no more than chance where nothing is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_agent.media.generator import generated_clip
from device_agent.noise import with_noise
from megace2_iot.cli.experiments import privacy
from megace2_iot.cli.experiments.exposure import accuracy, drawing, strangers, takes, vocoder, words
from megace2_iot.cli.experiments.exposure.finding import BOUND, Coding
from megace2_iot.cli.experiments.exposure.intelligibility import intelligibility
from megace2_iot.cli.experiments.exposure.inversion import Reader, features_back, learned_stem
from megace2_iot.cli.experiments.exposure.likeness import known_again
from megace2_iot.cli.experiments.exposure.sentences import Speech, speech_of
from megace2_iot.cli.experiments.request import Request
from megace2_iot.datasets.synthetic import synthetic
from megace2_iot.problems import Problem
from megace2_iot.stem import Stem

WORDS, DIM = 60, 20


def speech(sentences: int = 40) -> Speech:
    """Sentences of random words with random vectors."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((WORDS, DIM)).astype(np.float32)
    said = tuple(random.integers(0, WORDS, 12).astype(np.int32) for _ in range(sentences))
    return Speech("random words", vectors, said, np.arange(WORDS) < 6)


def read(own: Speech, sent: Stem, held: Stem, *, bound: float = 0.0, noise: float = 0.0) -> float:
    """The part of the words that somebody who holds a stem reads from what another stem has made."""
    reader = Reader.of(held.weights["text"], own.vectors, own.shares())
    coding, random, right = Coding("", bound), np.random.default_rng(1), []
    for row in own.sentences:
        z = with_noise(sent.embed("text", own.vectors[row]), noise, random)
        right.append(reader.read(coding.of_embedded(z))[:, 0] == row)
    return float(np.concatenate(right).mean())


@pytest.mark.parametrize(("width", "kernel"), [(DIM, 1), (8, 1), (16, 3), (12, 5)])
def test_who_has_the_stem_reads_every_word(width: int, kernel: int) -> None:
    """As it is and at the bound that edges set; a narrow stem, or a wide kernel, hides nothing."""
    own = speech()
    stem = Stem.random({"text": DIM}, width, 0, kernels={"text": kernel})
    assert read(own, stem, stem) > 0.99
    assert read(own, stem, stem, bound=BOUND) > 0.99


@pytest.mark.parametrize("kernel", [1, 3])
def test_another_stem_reads_nothing(kernel: int) -> None:
    """The attack tells by the stem and not by itself."""
    own = speech()
    stems = [Stem.random({"text": DIM}, DIM, seed, kernels={"text": kernel}) for seed in (0, 1)]
    assert read(own, *stems) < 4 / WORDS


def test_noise_hides_words_the_more_there_is_of_it() -> None:
    """A little hides nothing."""
    own, stem = speech(), Stem.random({"text": DIM}, DIM, 0)
    found = [read(own, stem, stem, bound=BOUND, noise=part) for part in (0.1, 1.0, 3.0)]
    assert found[0] > 0.99
    assert found[0] > found[1] > found[2] > 1 / WORDS


def test_a_stem_is_learned_from_known_sentences() -> None:
    """Twice as many words as vectors have numbers are enough."""
    own, stem = speech(), Stem.random({"text": DIM}, 8, 0)
    known = own.sentences[:4]
    vectors = [own.vectors[row] for row in known]
    learned = learned_stem(vectors, [stem.embed("text", x) for x in vectors], 1)
    np.testing.assert_allclose(learned, stem.weights["text"], atol=1e-3)


def test_the_same_word_is_the_same_step() -> None:
    """Whoever listens without a stem sees repetitions, all of them where the kernel is 1."""
    own = speech()
    found = {each.measure: each for each in strangers.with_nothing(own, 0) if "nano" in each.source}
    linked = found["the nearest step holds the same word"]
    assert linked.found == 1.0
    assert linked.guess is not None
    assert linked.guess < 0.05


def test_features_come_back_as_far_as_a_stem_is_wide() -> None:
    """All of them where it is wider than they are; about its part of them where it is narrower."""
    rows = np.random.default_rng(0).standard_normal((30, 12)).astype(np.float32)
    errors = []
    for width, kernel in ((16, 1), (6, 1), (6, 3)):
        stem = Stem.random({"audio": 12}, width, 0, kernels={"audio": kernel})
        found = features_back(stem.weights["audio"], np.zeros(12), np.eye(12), stem.embed("audio", rows))
        errors.append(float(np.square(found - rows).mean()))
    assert errors[0] < 1e-3
    assert errors[1:] == pytest.approx([0.5, 0.5], abs=0.25)


def test_sound_is_made_again() -> None:
    """Of a generated voice: much more like itself than like another's."""
    one, other = (takes._take(str(n), "", takes.read_generated(generated_clip(0, n))) for n in (0, 1))
    made = vocoder.speak(one.audio, vocoder.STEP, len(one.samples))
    size = min(len(made), len(other.samples))
    assert made.shape == one.samples.shape
    assert intelligibility(one.samples, one.samples) == pytest.approx(1.0)
    assert intelligibility(one.samples, made) > intelligibility(other.samples[:size], made[:size]) + 0.2


def test_persons_are_known_again_by_what_is_their_own() -> None:
    """A constant of each person's tells; without one it is chance."""
    random = np.random.default_rng(0)
    own = [takes.Take("", f"p{n % 4}", *[np.zeros(0, np.float32)] * 4) for n in range(16)]
    manners = random.standard_normal((4, 6)) * 5
    rows = [(random.standard_normal((20, 6)) + manners[n % 4]).astype(np.float32) for n in range(16)]
    found, chance = known_again(own, rows)
    assert found == 1.0
    assert chance == pytest.approx(3 / 15)


def test_an_option_is_measured_on_what_is_sent() -> None:
    """Strong noise costs accuracy; leaving out a modality trains without it."""
    bench = accuracy.Bench(synthetic(0, sites=1, streams=4, samples=10), 0, "nano", epochs=1)
    assert set(bench.measure()) == {accuracy.ACCURACY, accuracy.ERROR}
    without = bench.measure(accuracy._without("vision"))
    assert without != bench.measure()
    assert not bench.says(frozenset({b"no such word"}))


def test_a_report_has_a_table_for_each_thing_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any data it runs on built-in sentences; the second time nothing is attacked again."""
    monkeypatch.setattr(privacy, "ARMS", ("words",))
    monkeypatch.setattr(privacy, "QUICK_CLIPS", 1)
    monkeypatch.setattr(words, "PRESETS", ("nano",))
    monkeypatch.delenv("MEGACE2_DATA", raising=False)
    asked = Request(out=tmp_path, seeds=1, quick=True, command="test")
    first = privacy.run(asked)
    monkeypatch.setattr(privacy, "_findings", None)
    again = privacy.run(asked)
    assert again.rows == first.rows
    assert [part.title for part in first.more] == ["words that are sent"]
    assert {"from": "Z[0] of nano and the stem", "coding": "bound", words.FIRST: 1.0, words.FIVE: 1.0} in first.rows
    first.write(tmp_path)
    assert "| Z[0] of nano and the stem | bound | 1.000 | 1.000 |" in (tmp_path / "privacy.md").read_text()


def test_data_that_cannot_judge_are_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What hiding costs needs rows to learn from and rows to test, and the message says how to get them."""
    monkeypatch.delenv("MEGACE2_DATA", raising=False)
    data = tmp_path / "words.csv"
    data.write_text("text,label,mode\nso good,2,test\n")
    with pytest.raises(Problem, match="no labelled train rows: --split"):
        privacy.run(Request(tmp_path, data=str(data), seeds=1, quick=True))


def test_the_picture_has_a_point_for_each_level() -> None:
    """A source that was not measured at every level is left out; one without a plain point begins where others do."""
    finding = privacy.Finding
    found = [(finding("t", "a", coding, "m", 0.0), 0.5, 0.1) for coding in drawing.CODINGS]
    found += [(finding("t", "b", coding, "m", 0.0), 0.4, 0.1) for coding in drawing.CODINGS[1:]]
    found += [(finding("t", "c", "bound", "m", 0.0), 0.4, 0.1)]
    drawn = drawing.lines(found, "t", "m")
    assert set(drawn) == {"a", "b"}
    assert drawn["b"][0] == [0.5, *[0.4] * len(words.NOISE)]


def test_words_of_real_sentences_are_read(data_folder: Path) -> None:
    """GloVe of MOSI's vocabulary, 2,729 words, through a stem 16 wide: every one, at the bound that edges set."""
    own = speech_of(str(data_folder / "mosi_utterances.npz"), data_folder / "mosi_glove300.npz")
    assert len(own.vectors) == 2729
    stem = words.random_stem("nano", 300, 0)
    found = {each.coding: each.found for each in words.of_stem(own, stem, 0, "nano", 20) if each.measure == words.FIRST}
    assert found["float32"] == found["bound"] == 1.0
    assert found["bound, noise 3"] < 0.3
