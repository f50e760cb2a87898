"""`megace2 train` and `megace2 evaluate` as a user types them: a checkpoint, figures that agree, a run that goes on."""

import asyncio
import json
import signal
from dataclasses import replace

import numpy as np
import pytest
from tiers import Lab, command, launch, running, until

from cloud_aggregator.trainer import Trainer
from device_agent.fleet import ReplaySettings, run_fleet, shares
from device_agent.settings import DeviceSettings
from megace2_iot.datasets import load
from megace2_iot.messages import Prediction
from megace2_iot.model import checkpoint as checkpoints
from megace2_iot.model import methods
from megace2_iot.model.raw import answer, to_examples
from megace2_iot.model.runs import recommended, train
from megace2_iot.problems import Problem

SHORT = ("--epochs", "2", "--batch-size", "64")


def write_tables(folder):
    """A table of 80 train and 40 test rows, and one of the test rows alone."""
    rng, count = np.random.default_rng(0), 120
    score = rng.normal(size=count)
    table = {m: (score[:, None] * 3 + rng.normal(7, 1, (count, 4))).astype(np.float32) for m in ("text", "audio")}
    table |= {
        "vision": rng.normal(-2, 5, (count, 3)).astype(np.float32),
        "score": score,
        "video": np.array([f"v{i // 10}" for i in range(count)]),
        "segment": np.arange(count) % 10,
        "start": (np.arange(count) % 10) * 3.0,
        "split": np.array(["train"] * 80 + ["test"] * 40),
    }
    whole, alone = folder / "whole.npz", folder / "alone.npz"
    np.savez(whole, **table)
    np.savez(alone, **{key: values[80:] for key, values in table.items()})
    return whole, alone


async def test_a_checkpoint_is_measured_as_its_training_said(tmp_path):
    """The same rows and the same scale give the same figures, for Mega-CE2 and for a baseline."""
    data = ("--data", str(write_tables(tmp_path)[0]))
    for method in ("megace2", "ef_lstm"):
        run = ("--method", method, *data, *SHORT, "--seeds", "2", "--out", str(tmp_path / method))
        status, printed = await command("train", *run, "--json")
        assert status == 0, printed
        report = json.loads(printed)
        assert len(report["runs"]) == 2
        assert report["versions"]
        assert len(report["data"]["sha256"]) == 64
        status, printed = await command("evaluate", report["checkpoint"], *data, "--json")
        assert status == 0, printed
        found = json.loads(printed)
        assert found["measures"] == report["runs"][0]["test"]
        assert found["ridge"]["n"] == found["measures"]["n"]


async def test_rows_in_a_file_of_their_own_are_scaled_like_the_train_rows(tmp_path):
    """Held-back rows that come alone get the answers that they would get beside the train rows."""
    whole, alone = write_tables(tmp_path)
    out = str(tmp_path / "run")
    assert (await command("train", "--data", str(whole), *SHORT, "--out", out, "--json"))[0] == 0
    told = []
    for data in (whole, alone):
        status, printed = await command("evaluate", f"{out}/model.safetensors", "--data", str(data), "--json")
        assert status == 0, printed
        told.append(json.loads(printed)["measures"])
    assert told[0]["n"] == 40
    assert abs(told[0]["mae"] - told[1]["mae"]) < 1e-4


async def test_a_site_answers_as_the_checkpoint_that_it_began_with(run_embedded, tmp_path):
    """Also a device whose file has rows on a scale of their own, and the cloud that scores releases on them."""
    whole, alone = write_tables(tmp_path)
    settings = recommended("megace2", 0)
    trained = train(replace(settings, training=replace(settings.training, epochs=2)), load(whole), tmp_path)
    checkpoint = tmp_path / "best.safetensors"
    expected = answer(checkpoints.load(checkpoint), to_examples(load(whole).split("test")))
    played = ReplaySettings(source=str(alone), scale_of=checkpoint, speed=0)
    async with run_embedded() as broker:
        lab = Lab(broker.url, tmp_path)
        cloud = lab.cloud(model={"checkpoint": str(checkpoint)}, data=str(alone))
        edge = lab.edge(learning={"rounds": False, "adapters": False}, scheduling={"relative_bound": 0.004})
        device = DeviceSettings(id="cam-1", state_dir=tmp_path / "devices")
        fleet = run_fleet(played, shares(played), device, lab.topics, lab.broker)
        async with lab.listening() as ear, running(cloud, edge, fleet):
            await until(lambda: len(ear.of(Prediction, "cam-1")) == 40)
            await until(lambda: "release_accuracy" in ear.figures("cloud").gauges)
    answers = sorted(ear.of(Prediction, "cam-1"), key=lambda prediction: prediction.seq)
    np.testing.assert_allclose([prediction.score for prediction in answers], expected, atol=0.02)
    assert ear.figures("cloud").gauges["release_accuracy"] == pytest.approx(trained.test.acc2)


def test_a_baseline_cannot_be_a_release(tmp_path):
    """It is told by its name, not by what its config lacks."""
    checkpoints.save(tmp_path / "lstm", methods.make("ef_lstm", {"text": 2}, 0))
    with pytest.raises(Problem, match="is a checkpoint of ef_lstm: the tiers run Mega-CE2 only"):
        Trainer().first("nano", {}, 0, str(tmp_path / "lstm"))


async def test_data_that_no_release_could_be_scored_on_are_refused(tmp_path):
    """Before anybody has heard of a release."""
    whole, _ = write_tables(tmp_path)
    with pytest.raises(Problem, match="features are text 4, audio 4, vision 3 wide, the model takes text 24"):
        await Lab("mqtt://127.0.0.1:1", tmp_path).cloud(data=str(whole))


async def test_a_killed_training_goes_on(tmp_path):
    """The second call begins with the epoch after the last that was kept; ended by Ctrl-C, it says how to go on."""
    arguments = ("train", "--epochs", "500", "--batch-size", "64", "--out", str(tmp_path))
    first = await launch(*arguments)
    try:
        async with asyncio.timeout(60):
            while b"epoch 2/500" not in await first.stdout.readline():
                pass
    finally:
        first.kill()
        await first.wait()
    second = await launch(*arguments)
    try:
        async with asyncio.timeout(60):
            line = await second.stdout.readline()
            second.send_signal(signal.SIGINT)
            rest, _ = await second.communicate()
    finally:
        if second.returncode is None:
            second.kill()
            await second.wait()
    assert second.returncode == 130
    assert b"stopped: the same command goes on" in rest
    assert b"Traceback" not in rest
    assert int(line.split()[3].split(b"/")[0]) > 2
