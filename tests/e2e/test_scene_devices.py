"""A camera here and a microphone there: windows of one scene become one sample at the edge."""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest
from tiers import corpus, running, until

from device_agent.sources import window_of
from megace2_iot.messages import Prediction

NOW = time.time() - 60.0
QUIET = {"learning": {"rounds": False, "adapters": False}, "scheduling": {"relative_bound": 0.0}}


def watching(lab, id, dims, windows, scene="desk"):
    """A device that plays its part of a scene."""

    async def stream():
        for window in windows:
            await asyncio.sleep(0.05)
            yield window

    return lab.device(id, dims=dims, scene=scene).run(stream(), stay=True)


def parts(sample, *modalities, at):
    without = {"text", "audio", "vision"} - set(modalities)
    return replace(window_of(sample, without), captured_at=at)


async def test_two_devices_of_a_scene_get_one_answer(run_embedded, make_lab):
    """Both hear the score of the whole sample, and who else had a part in it."""
    samples = corpus(3)
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        seen = [parts(sample, "vision", at=NOW + 4 * i) for i, sample in enumerate(samples)]
        heard = [parts(sample, "text", "audio", at=NOW + 4 * i + 0.4) for i, sample in enumerate(samples)]
        camera = watching(lab, "camera", {"vision": 10}, seen)
        microphone = watching(lab, "microphone", {"text": 24, "audio": 12}, heard)
        whole = watching(lab, "whole", {"text": 24, "audio": 12, "vision": 10}, [window_of(s) for s in samples], "")
        edge = lab.edge(**QUIET, scenes={"deadline": 20.0})
        async with lab.listening() as ear, running(lab.cloud(), edge, camera, microphone, whole):
            await until(lambda: len(ear.of(Prediction)) == 9)
            await until(lambda: ear.figures("edge-1").counters["scenes_complete"] == 3)
        scores = {
            id: [p.score for p in sorted(ear.of(Prediction, id), key=lambda p: p.seq)]
            for id in ("camera", "microphone", "whole")
        }
        assert scores["camera"] == scores["microphone"]
        assert np.allclose(scores["camera"], scores["whole"], atol=1e-4)
        assert {p.scene for p in ear.of(Prediction, "camera")} == {("camera", "microphone")}
        assert {p.scene for p in ear.of(Prediction, "whole")} == {()}


@pytest.mark.parametrize("other", ["silent", "offline"])
async def test_a_scene_does_not_wait_for_ever(run_embedded, make_lab, other):
    """A member that sends nothing holds a sample up until its deadline, one that is gone not at all."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        camera = watching(
            lab, "camera", {"vision": 10}, [parts(s, "vision", at=NOW + 4 * i) for i, s in enumerate(corpus(2))]
        )
        tiers = [lab.cloud(), lab.edge(**QUIET, scenes={"deadline": 0.5 if other == "silent" else 60.0}), camera]
        if other == "silent":
            tiers.append(watching(lab, "microphone", {"audio": 12}, []))
        async with lab.listening() as ear, running(*tiers):
            await until(lambda: len(ear.of(Prediction)) == 2)
            left = "scenes_overdue" if other == "silent" else "scenes_complete"
            await until(lambda: ear.figures("edge-1").counters[left] == 2)
        assert {p.status for p in ear.of(Prediction)} == {"answered"}
