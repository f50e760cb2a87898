"""Training runs: the same from the same seed, going on after a kill, judged by rows that can judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from megace2_iot.datasets.sample import Dataset
from megace2_iot.datasets.synthetic import synthetic
from megace2_iot.model import checkpoint
from megace2_iot.model.config import preset
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.raw import answer, sets_of, to_examples
from megace2_iot.model.runs import Epoch, RunSettings, new_model, recommended, saw_labels, train
from megace2_iot.model.training import TrainingSettings

CORPUS = synthetic(0, streams=4, samples=20)
SHORT = RunSettings(training=TrainingSettings(epochs=3, batch_size=16, schedule="cosine", weight_decay=0.1))


class Killed(Exception):
    """The end of a run in the middle."""


def stop_after(number: int):
    def told(epoch: Epoch) -> None:
        if epoch.number == number:
            raise Killed

    return told


@pytest.mark.parametrize("method", ["megace2", "lf_lstm"])
def test_a_killed_run_ends_as_it_would_have(tmp_path: Path, method: str) -> None:
    """Model, optimiser, order and dropout go on where they were: the same bits."""
    settings = replace(SHORT, method=method)
    whole = train(settings, CORPUS, tmp_path / "whole")
    with pytest.raises(Killed):
        train(settings, CORPUS, tmp_path / "killed", stop_after(1))
    heard: list[int] = []
    resumed = train(settings, CORPUS, tmp_path / "killed", lambda epoch: heard.append(epoch.number))
    assert heard == [2]
    assert resumed.epochs == whole.epochs
    assert resumed.test == whole.test
    ours, theirs = (checkpoint.load(tmp_path / name / "best.safetensors").state_dict() for name in ("killed", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_other_settings_begin_anew(tmp_path: Path) -> None:
    """What lies in the folder is of another run."""
    train(SHORT, CORPUS, tmp_path)
    heard: list[int] = []
    train(replace(SHORT, seed=1), CORPUS, tmp_path, lambda epoch: heard.append(epoch.number))
    assert heard == [0, 1, 2]


def test_the_best_epoch_is_kept_and_patience_ends_a_run(tmp_path: Path) -> None:
    """An absurd learning rate makes later epochs worse; the checkpoint is the best one's."""
    settings = RunSettings(training=TrainingSettings(epochs=30, learning_rate=0.3), patience=2)
    result = train(settings, CORPUS, tmp_path)
    errors = [epoch.valid for epoch in result.epochs]
    assert len(errors) < 30
    assert result.chosen == int(np.argmin(errors)) == len(errors) - 3
    kept, judges = checkpoint.load(tmp_path / "best.safetensors"), sets_of(CORPUS).valid
    truth = np.array([example.score for example in judges])
    assert np.abs(answer(kept, judges) - truth).mean() == pytest.approx(min(errors), abs=1e-6)


def test_rows_whose_features_saw_labels_judge_nothing() -> None:
    """They would always say that the longest training is best."""
    leaking = tuple(replace(s, features_saw_label=s.split != "test") for s in CORPUS.samples)
    sets = sets_of(replace(CORPUS, samples=leaking))
    assert not sets.valid
    assert sets.judged_by.startswith("nobody")
    assert len(sets.train) == len(to_examples([s for s in CORPUS.samples if s.split != "test"]))


def test_without_validation_rows_whole_groups_judge() -> None:
    """No group is on both sides."""
    dataset = Dataset("x", CORPUS.dims, CORPUS.split("train"))
    sets = sets_of(dataset)
    assert sets.valid
    assert len(sets.train) + len(sets.valid) == len(to_examples(dataset.samples))
    assert "held back" in sets.judged_by


def test_an_unknown_method_is_named() -> None:
    """With what there is to choose from."""
    with pytest.raises(ValueError, match="no method 'resnet': choose one of ef_lstm"):
        recommended("resnet", 0)


def test_leaking_features_are_held_back() -> None:
    """By a lower rate, a stronger decay and more dropout of our model; a baseline keeps the recipe of its paper."""
    leaking = replace(CORPUS, samples=(replace(CORPUS.samples[0], features_saw_label=True), *CORPUS.samples[1:]))
    assert (saw_labels(CORPUS), saw_labels(leaking)) == (False, True)
    clean, held_back = (recommended("megace2", 0, leaking=leaks) for leaks in (False, True))
    assert clean.training.weight_decay < held_back.training.weight_decay
    assert clean.training.learning_rate > held_back.training.learning_rate
    model = new_model(held_back, CORPUS.dims)
    assert isinstance(model, CrossModalTransformer)
    assert model.config.dropouts == held_back.dropouts
    assert new_model(clean, CORPUS.dims).config.dropouts == preset("nano", CORPUS.dims).dropouts
    assert recommended("ef_lstm", 0) == recommended("ef_lstm", 0, leaking=True)


def test_without_labels_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    """A clear error instead of an empty model."""
    silent = tuple(replace(sample, score=None) for sample in CORPUS.samples)
    with pytest.raises(ValueError, match="no labelled train rows"):
        train(SHORT, replace(CORPUS, samples=silent), tmp_path)
