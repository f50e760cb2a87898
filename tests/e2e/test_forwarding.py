"""Up the tiers: what an edge is not sure of the cloud answers, in time or not at all; what is too poor is masked."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from tiers import corpus, played, running, until

from device_agent.sources import window_of
from megace2_iot.messages import CloudAnswer, Forward, Prediction
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.state import save_checkpoint

SHARED = {"share_labels": True}
ADAPTERS = {"rounds": False}
DIMS = {"text": 24, "audio": 12, "vision": 10}


@contextlib.asynccontextmanager
async def asking(make_lab, broker, *, cloud=None, forwarding=None, scheduling=None):
    """A site whose edge is sure of nothing, and a device all of whose labelled windows were answered."""
    lab = make_lab(broker.url)
    edge = lab.edge(
        learning=ADAPTERS,
        scheduling={**SHARED, **(scheduling or {})},
        forwarding={"below": 1.0, "timeout": 20.0, **(forwarding or {})},
    )
    device = lab.device(share_labels=1.0)

    async def stream():
        for number, sample in enumerate(corpus(96)):  # groups of one: they fall into both halves of the store
            yield replace(window_of(sample), group=f"g{number}")
        await until(lambda: ear.figures("edge-1").counters["adapters_tuned"], 60)  # from then on it has confidence
        async for window in played(corpus(8), pause=0.1):
            yield window

    async with lab.listening() as ear, running(lab.cloud(**(cloud or {})), edge, device.run(stream(), stay=True)):
        yield ear


async def test_the_cloud_answers_what_the_edge_is_not_sure_of(run_embedded, make_lab):
    """The device hears one answer, of the cloud's tier, from the release that it names."""
    async with run_embedded() as broker, asking(make_lab, broker) as ear:
        await until(lambda: [p for p in ear.of(Prediction) if p.tier == "cloud"], 60)
        (told, *_) = [p for p in ear.of(Prediction) if p.tier == "cloud"]
        assert told.version == 1
        assert told.score is not None
        assert told.score in [answer.score for answer in ear.of(CloudAnswer)]
        assert not told.adapter
        await until(lambda: ear.figures("edge-1").counters["answers_by_cloud"])
        await until(lambda: ear.figures("cloud").counters["forwards_answered"])


async def test_a_larger_model_answers_features(run_embedded, make_lab, tmp_path):
    """With a checkpoint of another width and stem the cloud answers where edges take features."""
    path = tmp_path / "large.safetensors"
    save_checkpoint(path, CrossModalTransformer.seeded(preset("mult", DIMS), 1))
    cloud, scheduling = {"answer_with": str(path)}, {"stages": ("features",)}
    async with run_embedded() as broker, asking(make_lab, broker, cloud=cloud, scheduling=scheduling) as ear:
        await until(lambda: [p for p in ear.of(Prediction) if p.tier == "cloud"], 60)


async def test_the_edge_answers_where_the_cloud_cannot(run_embedded, make_lab, tmp_path):
    """A larger model has no answer to another stem's Z[0]: the edge's own counts, and the reason is told."""
    path = tmp_path / "large.safetensors"
    save_checkpoint(path, CrossModalTransformer.seeded(preset("mult", DIMS), 1))
    cloud, scheduling = {"answer_with": str(path)}, {"stages": ("embedded",)}
    async with run_embedded() as broker, asking(make_lab, broker, cloud=cloud, scheduling=scheduling) as ear:
        await until(lambda: ear.of(CloudAnswer), 60)
        await until(lambda: len({p.seq for p in ear.of(Prediction)}) == len(corpus(96)) + len(corpus(8)))
        assert "another stem" in ear.of(CloudAnswer)[0].reason
        assert {p.tier for p in ear.of(Prediction)} == {"edge"}


async def test_a_late_cloud_is_not_waited_for(run_embedded, make_lab):
    """After its timeout the edge's own answer goes out, and what comes later is counted."""
    forwarding = {"timeout": 0.001}
    async with run_embedded() as broker, asking(make_lab, broker, forwarding=forwarding) as ear:
        await until(lambda: ear.of(Forward), 60)
        await until(lambda: len({p.seq for p in ear.of(Prediction)}) == len(corpus(96)) + len(corpus(8)))
        assert {p.tier for p in ear.of(Prediction)} == {"edge"}
        await until(lambda: ear.figures("edge-1").counters["cloud_answers_late"])
        assert ear.figures("edge-1").counters["cloud_answers_missing"]


@pytest.mark.parametrize(
    ("quality", "masked"),
    [({"vision_exposure": 0.0}, {"vision"}), ({"audio_level": -90.0, "text_gap": 0.0}, {"audio"}), ({}, set())],
)
async def test_a_modality_under_its_floor_is_masked(run_embedded, make_lab, quality, masked):
    """The answer says what was left out and why, and is the answer to the window without it."""
    sample = corpus(1)[0]
    poor = replace(window_of(sample), quality=quality)
    without = window_of(sample, masked)

    async def stream():
        yield poor
        yield without

    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        edge = lab.edge(learning={"rounds": False, "adapters": False}, scheduling={"relative_bound": 0.0})
        async with lab.listening() as ear, running(lab.cloud(), edge, lab.device().run(stream(), stay=True)):
            await until(lambda: len(ear.of(Prediction)) == 2)
            first, second = sorted(ear.of(Prediction), key=lambda p: p.seq)
        assert set(first.masked) == masked
        assert all(name in first.reason for name in quality if name.split("_")[0] in masked)
        assert np.isclose(first.score, second.score, atol=1e-4)


async def test_a_window_with_nothing_good_is_refused(run_embedded, make_lab):
    """It is not inferred, and its device is told why and does not send it again."""
    bad = {"text_unknown": 1.0, "audio_level": -95.0, "vision_exposure": 0.0}

    async def stream():
        yield replace(window_of(corpus(1)[0]), quality=bad)

    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        edge = lab.edge(learning={"rounds": False, "adapters": False})
        async with lab.listening() as ear, running(lab.cloud(), edge):
            await lab.device().run(stream())
            await until(lambda: ear.of(Prediction))
            (prediction,) = ear.of(Prediction)
        assert prediction.status == "refused"
        assert "nothing of it is good enough" in prediction.reason
