"""Data sets as a user meets them: `megace2 data inspect`, and every layout as a replay."""

import csv
import json
import pickle
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
from tiers import Lab, command, played, process, running, until

from cloud_aggregator.cloud import CloudSettings
from device_agent.fleet import ReplaySettings, shares
from megace2_iot.cli.run_demo import DemoOptions, prepare, write_settings
from megace2_iot.datasets import load
from megace2_iot.datasets.sample import SPLITS
from megace2_iot.messages import DeviceProfile
from megace2_iot.service import Settings


def write_transcripts(path):
    """Sixty rows of twelve videos."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "clip_id", "text", "label", "mode"])
        for i in range(60):
            split = SPLITS[min(2, i // 20)]
            writer.writerow([f"v{i // 5}", f"{i}_5", f"number {i} is {'good' if i % 2 else 'bad'}", i % 7 - 3, split])


def write_sequences(path):
    """Twelve samples of three modalities; two values are not finite."""
    rng = np.random.default_rng(0)
    blocks = {m: rng.standard_normal((12, 8, width)) for m, width in (("text", 6), ("audio", 4), ("vision", 3))}
    blocks["audio"][0, 0, :2] = -np.inf
    np.savez(path, **blocks, score=np.linspace(-3, 3, 12), split=np.repeat(SPLITS, 4))


def write_mult(path):
    """MulT's layout, in small."""
    rng = np.random.default_rng(0)
    blocks = {m: rng.standard_normal((6, 8, width)) for m, width in (("text", 6), ("audio", 4), ("vision", 3))}
    ids = np.array([[f"v{i}", "0", "4"] for i in range(6)], dtype="S5")
    part = {**blocks, "labels": rng.uniform(-3, 3, (6, 1, 1)), "id": ids}
    path.write_bytes(pickle.dumps(dict.fromkeys(SPLITS, part), protocol=2))


def write_mmsa(path):
    """MMSA's layout, in small."""
    rng = np.random.default_rng(0)
    blocks = {m: rng.standard_normal((6, 8, width)) for m, width in (("text", 6), ("audio", 4), ("vision", 3))}
    part = {**blocks, "regression_labels": rng.uniform(-3, 3, 6), "id": [f"v{i}$_$0" for i in range(6)]}
    path.write_bytes(pickle.dumps(dict.fromkeys(SPLITS, part)))


def write_csd(path):
    """The SDK's layout, in small: a folder."""
    path.mkdir()
    for name, features in (("glove_vectors", np.ones((8, 6))), ("All Labels", np.ones((1, 7)))):
        with h5py.File(path / f"{name}.csd", "w") as file:
            for video in range(6):
                group = file.create_group(f"{name}/data/v{video}")
                group["features"] = features
                group["intervals"] = np.linspace(0, 8, len(features) + 1)[np.arange(len(features))[:, None] + [0, 1]]


LAYOUTS = {
    "text.csv": write_transcripts,
    "sequences.npz": write_sequences,
    "mosi_data.pkl": write_mult,
    "aligned_50.pkl": write_mmsa,
    "exports": write_csd,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_a_replay(tmp_path, name):
    """What `replay`, `device --replay` and `demo --data` do first: load, and deal to devices."""
    LAYOUTS[name](tmp_path / name)
    dealt = shares(ReplaySettings(source=str(tmp_path / name), devices=2)).dealt
    assert len(dealt) == 2
    assert all(dealt)
    assert sum(len(share) for share in dealt) == len(load(tmp_path / name).samples)


def write_vectors(path):
    """A vector for some of the words of the transcripts."""
    path.write_text("good 1 2 3\nbad 4 5 6\nnumber 7 8 9\n")


def held_out(samples):
    return {sample.id for sample in samples if sample.split == "test"}


def test_the_devices_of_a_demo_hold_out_what_its_report_is_judged_on(tmp_path, monkeypatch):
    """Words, split and seed go through the run's settings file, from whatever folder a tier is started again."""
    monkeypatch.chdir(tmp_path)
    write_transcripts(tmp_path / "text.csv")
    write_vectors(tmp_path / "own glove.txt")
    run = prepare(demo_options(data="text.csv", split="speaker", vectors=Path("own glove.txt"), seed=5))
    write_settings(run, "mqtt://127.0.0.1:1883")
    monkeypatch.chdir("/")
    file = tmp_path / "runs" / run.folder.name / "megace2.toml"
    replay = {"source": str(tmp_path / "text.csv"), "edges": 2, "devices": 2}
    played = [
        shares(Settings(file, {"replay": {**replay, "index": index}}).section("replay", ReplaySettings))
        for index in range(2)
    ]
    assert run.dataset.notes[-1] == "split by speaker, about 70/10/20, seed 5"
    assert [of_edge.dims for of_edge in played] == [{"text": 3}, {"text": 3}]
    assert Settings(file).section("cloud", CloudSettings).model.dims == {"text": 3}
    of_devices = held_out(sample for of_edge in played for share in of_edge.dealt for sample in share)
    assert of_devices == held_out(run.dataset.samples)
    assert of_devices != held_out(load(tmp_path / "text.csv").samples)


def demo_options(**given):
    plain = {"devices": 2, "edges": 2, "speed": None, "seconds": 10.0, "preset": "nano", "rule": "latched"}
    return DemoOptions(**plain, broker="embedded", out=Path("runs"), as_json=True, **given)


@pytest.mark.parametrize("name", ["device", "replay"])
async def test_a_device_plays_words_and_a_split_of_choice(run_embedded, tmp_path, name):
    """From the command line through the process that it becomes; a seed gives each device the same split."""
    write_transcripts(tmp_path / "text.csv")
    write_vectors(tmp_path / "glove.txt")
    asked = ("--vectors", str(tmp_path / "glove.txt"), "--split", "speaker", "--seed", "5", "--no-train")
    source = {"device": ("device", "--replay"), "replay": ("replay", "--devices", "1", "--prefix", "cam")}[name]
    async with run_embedded() as broker:
        lab = Lab(broker.url, tmp_path)
        async with (
            lab.listening() as ear,
            process(*source, str(tmp_path / "text.csv"), *asked, "--config", str(lab.settings_file())) as device,
        ):
            await until(lambda: ear.of(DeviceProfile))
            device.send_signal(signal.SIGINT)
            assert await device.wait() == 0
    assert ear.of(DeviceProfile)[0].dims == {"text": 3}
    said = "".join(device.said)
    assert "words are vectors of glove.txt" in said
    assert "split by speaker, about 70/10/20, seed 5" in said
    assert "Traceback" not in said


async def test_inspect_shows_what_a_data_set_holds(tmp_path):
    """Splits, lengths, labels and notes within 80 columns; the same as one JSON object."""
    write_sequences(tmp_path / "own.npz")
    status, printed = await command("data", "inspect", str(tmp_path / "own.npz"))
    assert status == 0, printed
    for text in ("own: 12 samples", "train", "vision", "+3", "2 values of 1 samples were not finite", "Leak: too few"):
        assert text in printed, printed
    assert max(len(line) for line in printed.splitlines()) <= 80
    status, printed = await command("data", "inspect", str(tmp_path / "own.npz"), "--split", "random", "--json")
    told = json.loads(printed)
    assert status == 0
    assert told["modalities"]["audio"]["replaced"] == 2
    assert sum(part["samples"] for part in told["splits"].values()) == 12
    assert "split at random by sample, 70/10/20, seed 0" in told["notes"]


MISTAKES = {
    "a missing file": (["nowhere.npz"], "no data set 'nowhere.npz': understood is"),
    "an unknown layout": (["notes.txt"], "notes.txt is not understood"),
    "an evil pickle": (["evil.pkl"], "names posix.system"),
    "an unknown split": (["synthetic", "--split", "best"], "choose one of official, random, speaker"),
    "missing vectors": (["text.csv", "--vectors", "nowhere.txt"], "nowhere.txt"),
}


class Evil:
    """What must not run."""

    def __reduce__(self):
        import os

        return os.system, ("touch executed",)


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_mistake_is_told_in_one_line(tmp_path, monkeypatch, name):
    """Status 1, what is wrong and what is understood, no traceback; and nothing of a pickle has run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    write_transcripts(tmp_path / "text.csv")
    arguments, text = MISTAKES[name]
    status, printed = await command("data", "inspect", *arguments)
    assert (status, len(printed.splitlines())) == (1, 1), printed
    assert text in printed
    assert not (tmp_path / "executed").exists()


async def test_text_alone_is_answered(run_embedded, tmp_path):
    """A model for data of one modality gives the others width 1, and no device needs to send them."""
    write_transcripts(tmp_path / "text.csv")
    dataset = load(tmp_path / "text.csv")
    async with run_embedded() as broker:
        lab = Lab(broker.url, tmp_path)
        cloud = lab.cloud(model={"preset": "nano", "dims": dict(dataset.dims)})
        stream = lab.device(dims=dict(dataset.dims)).run(played(dataset.samples[:8]), stay=True)
        async with lab.listening() as ear, running(cloud, lab.edge(learning={"rounds": False}), stream):
            await until(lambda: ear.figures("cam-1").counters["windows_answered"] == 8)
    assert ear.figures("cam-1").counters["windows_refused"] == 0
