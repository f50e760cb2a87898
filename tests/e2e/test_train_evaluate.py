"""`megace2 train` and `megace2 evaluate` as a user types them: a checkpoint, figures that agree, a run that goes on."""

import asyncio
import json

import numpy as np
from tiers import command, launch

SHORT = ("--epochs", "2", "--batch-size", "64")


async def test_a_checkpoint_is_measured_as_its_training_said(tmp_path):
    """The same rows and the same scale give the same figures, for Mega-CE2 and for a baseline."""
    for method in ("megace2", "ef_lstm"):
        out = str(tmp_path / method)
        status, printed = await command("train", "--method", method, *SHORT, "--seeds", "2", "--out", out, "--json")
        assert status == 0, printed
        report = json.loads(printed)
        assert len(report["runs"]) == 2
        assert report["versions"]
        assert len(report["data"]["sha256"]) == 64
        status, printed = await command("evaluate", report["checkpoint"], "--data", "synthetic", "--json")
        assert status == 0, printed
        found = json.loads(printed)
        assert found["measures"] == report["runs"][0]["test"]
        assert found["ridge"]["n"] == found["measures"]["n"]


async def test_rows_in_a_file_of_their_own_are_scaled_like_the_train_rows(tmp_path):
    """Held-back rows that come alone get the answers that they would get beside the train rows."""
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
    whole, alone = tmp_path / "whole.npz", tmp_path / "alone.npz"
    np.savez(whole, **table)
    np.savez(alone, **{key: values[80:] for key, values in table.items()})
    out = str(tmp_path / "run")
    assert (await command("train", "--data", str(whole), *SHORT, "--out", out, "--json"))[0] == 0
    told = []
    for data in (whole, alone):
        status, printed = await command("evaluate", f"{out}/model.safetensors", "--data", str(data), "--json")
        assert status == 0, printed
        told.append(json.loads(printed)["measures"])
    assert told[0]["n"] == 40
    assert abs(told[0]["mae"] - told[1]["mae"]) < 1e-4


async def test_a_killed_training_goes_on(tmp_path):
    """The second call begins with the epoch after the last that was kept."""
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
    finally:
        second.kill()
        await second.wait()
    assert int(line.split()[3].split(b"/")[0]) > 2
