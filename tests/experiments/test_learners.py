"""Learners over flat vectors: our model as the tiers train it, SCAFFOLD, adapters that are sent, and baselines."""

from __future__ import annotations

import numpy as np
import pytest

from megace2_iot.cli.experiments.corpus import Corpus, make_corpus
from megace2_iot.cli.experiments.federation import EdgeData, Federation, FederationSettings
from megace2_iot.cli.experiments.fleet import FleetSettings
from megace2_iot.cli.experiments.learners import Learner
from megace2_iot.cli.experiments.method_learner import MethodLearner
from megace2_iot.cli.experiments.request import Request
from megace2_iot.cli.experiments.scaffold import CONTROL, ScaffoldLearner, SgdLearner
from megace2_iot.cli.experiments.torch_learner import SendingLearner, TorchLearner, scores_of
from megace2_iot.datasets.metrics import metrics
from megace2_iot.datasets.synthetic import synthetic
from megace2_iot.model.local import training_settings
from megace2_iot.model.state import base_tensors, load_base
from megace2_iot.model.training import fit
from megace2_iot.parameters import Vector

TRAINING = {"epochs": 1, "sgd_rate": 0.1, "learning_rate": 3e-3, "rate_scale": 1.0}


def corpus_of(*, raw: bool = False) -> Corpus:
    return make_corpus(synthetic(0, sites=2, samples=20), 0, edges=2, devices=2, raw=raw)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return corpus_of()


def test_it_trains_as_fit_does(corpus: Corpus) -> None:
    """The delta of a round is that of the one loop, with the round's settings and seed."""
    learner, share = TorchLearner(corpus.model), corpus.edges[0].devices[0]
    trained = learner.train(learner.first, share, 7, TRAINING, None)
    load_base(corpus.model, learner.layout.unflatten(learner.first))
    fit(corpus.model, share, training_settings(TRAINING), 7)
    np.testing.assert_array_equal(trained.delta, learner.layout.flatten(base_tensors(corpus.model)) - learner.first)
    load_base(corpus.model, learner.layout.unflatten(learner.first))
    assert set(trained.num_examples.values()) == {float(len(share))}


def test_no_sample_is_in_two_places(corpus: Corpus) -> None:
    """What judges adapters and models has trained none of them."""
    for edge in corpus.edges:
        trained = {id_of(example) for share in (*edge.devices, edge.fit) for example in share}
        assert trained.isdisjoint(id_of(example) for example in (*edge.gate, *edge.held_out))
        assert len(edge.fit) > 10 < len(edge.gate)


def id_of(example: object) -> bytes:
    z: dict[str, Vector] = example.z  # type: ignore[attr-defined]
    return z["text"].tobytes()


def test_scaffold_begins_as_plain_sgd(corpus: Corpus) -> None:
    """With all controls zero the model's part is the same, and c_i becomes the mean gradient of the round."""
    plain, scaffold, share = SgdLearner(corpus.model), ScaffoldLearner(corpus.model), corpus.edges[0].devices[0]
    alone = plain.train(plain.first, share, 3, TRAINING, None)
    both = scaffold.train(scaffold.first, share, 3, TRAINING, None)
    parts = scaffold.layout.unflatten(both.delta)
    for name, part in plain.layout.unflatten(alone.delta).items():
        np.testing.assert_allclose(parts[name], part, atol=1e-6)
        np.testing.assert_allclose(parts[CONTROL + name], -part / (alone.steps * 0.1), atol=1e-4)
    assert {n for group, n in both.num_examples.items() if group.startswith(CONTROL)} == {1.0}


def test_a_control_equal_to_its_own_changes_nothing(corpus: Corpus) -> None:
    """c = c_i, as where all devices are alike: plain SGD again."""
    plain, scaffold, share = SgdLearner(corpus.model), ScaffoldLearner(corpus.model), corpus.edges[0].devices[0]
    own = np.full(plain.layout.size, 0.01, np.float32)
    controls = {CONTROL + name: part for name, part in plain.layout.unflatten(own).items()}
    base = scaffold.layout.flatten({**plain.layout.unflatten(plain.first), **controls})
    moved = scaffold.layout.unflatten(scaffold.train(base, share, 3, TRAINING, own).delta)
    for name, part in plain.layout.unflatten(plain.train(plain.first, share, 3, TRAINING, None).delta).items():
        np.testing.assert_allclose(moved[name], part, atol=1e-6)


def test_a_sent_adapter_is_a_group_of_its_own(corpus: Corpus) -> None:
    """Devices stand behind the base's groups alone, the edge behind the adapter's with its labelled samples."""
    learner, edge = SendingLearner(corpus.model, 0), corpus.edges[0]
    part = learner.layout.groups["adapter"]
    trained = learner.train(learner.first, edge.devices[0], 1, TRAINING, None)
    assert not trained.delta[part].any()
    assert "adapter" not in trained.num_examples
    refined = learner.refine(learner.first, edge.fit, 1, TRAINING)
    assert refined is not None
    assert refined.num_examples == {"adapter": float(len(edge.fit))}
    assert refined.delta[part].any()
    assert np.count_nonzero(refined.delta) <= part.stop - part.start
    plain = TorchLearner(corpus.model)
    assert not np.array_equal(learner.answers(learner.first, edge.fit), plain.answers(plain.first, edge.fit))


@pytest.mark.slow
def test_a_baseline_learns_in_the_same_federation() -> None:
    """Raw features, its own layout, the same rounds and rule."""
    corpus = corpus_of(raw=True)
    learner = MethodLearner("lf_lstm", corpus.dims, 0)
    losses = errors_of(learner, corpus)
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_our_model_learns_in_the_federation(corpus: Corpus) -> None:
    """Far from release 1 within a few rounds."""
    losses = errors_of(TorchLearner(corpus.model), corpus)
    assert losses[-1] < 0.95 * losses[0]


def errors_of(learner: Learner, corpus: Corpus) -> list[float]:
    """MAE of each release on all held-out samples; 48 samples a device."""
    held_out = [example for edge in corpus.edges for example in edge.held_out]
    data = [EdgeData(tuple(share[:48] for share in edge.devices)) for edge in corpus.edges]
    found: list[float] = []
    learning = Request("", quick=True).learning()  # type: ignore[arg-type]
    settings = FederationSettings("latched", FleetSettings(edges=2, devices=2), learning)
    federation = Federation(
        learner,
        data,
        settings,
        0,
        lambda release: found.append(metrics(learner.answers(release.vector, held_out), scores_of(held_out)).mae),
    )
    federation.run(releases=7)
    return found
