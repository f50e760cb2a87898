"""`megace2 outbox`: what it shows beside a running device, what it sheds, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiers import corpus
from typer.testing import CliRunner

from device_agent.outbox import Bounds, Outbox
from device_agent.sources import window_of
from device_agent.windows import to_record
from megace2_iot.cli.app import app
from megace2_iot.cli.status import _print
from megace2_iot.cli.watching import Node, Watch
from megace2_iot.problems import Problem
from megace2_iot.topics import Topics

BOUNDS = Bounds(windows=100, size=1 << 30, age=1e12)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An outbox of five windows, of a minute ago to now, of which one more was answered."""
    path = tmp_path / "cam-1.outbox"
    outbox = Outbox(path, BOUNDS)
    for number, sample in enumerate(corpus(6)):
        outbox.accept(to_record(window_of(sample)), 1.7e9 + number, 0.0)
    outbox.free(1)
    outbox.close()
    return path


def ask(path: Path, *words: str, **given: Any) -> str:
    """What `megace2 outbox WORDS` prints; raises what it raises."""
    done = CliRunner().invoke(app, ["outbox", *words, "--id", "cam-1", "--state-dir", str(path.parent)], **given)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_stats_tell_what_waits_and_how_windows_ended(path: Path) -> None:
    """For programs every figure, for people four lines; the look leaves no file behind."""
    found = json.loads(ask(path, "stats", "--json"))
    assert (found["windows"], found["first_seq"], found["last_seq"], found["device_runs"]) == (5, 2, 6, False)
    assert (found["totals"]["accepted"], found["totals"]["answered"], found["gaps"]) == (6, 1, 0)
    assert "5 windows of" in ask(path, "stats")
    assert {file.name for file in path.parent.iterdir()} == {"cam-1.outbox", "cam-1.outbox.epoch", "cam-1.outbox.lock"}


def test_it_looks_beside_a_running_device(path: Path) -> None:
    """What is committed is seen, and the device goes on as if nobody looked."""
    outbox = Outbox(path, BOUNDS)
    outbox.accept(b"damaged", 1.8e9, 0.0)
    assert json.loads(ask(path, "stats", "--json"))["device_runs"]
    listed = json.loads(ask(path, "list", "--json"))["windows"]
    assert [window["seq"] for window in listed] == [2, 3, 4, 5, 6, 7]
    assert [window["modalities"] for window in listed[-2:]] == [["text", "audio", "vision"], None]
    assert "unreadable" in ask(path, "list")
    assert "unreadable" not in ask(path, "list", "--limit", "3")
    assert outbox.free(2)
    outbox.close()


@pytest.mark.parametrize(
    ("words", "left"),
    [(("--seqs", "3-4"), [2, 5, 6]), (("--seqs", "5"), [2, 3, 4, 6]), (("--all",), []), (("--older-than", "60"), [])],
)
def test_what_is_dropped_counts_as_shed(path: Path, words: tuple[str, ...], left: list[int]) -> None:
    """The edge will be told which seqs; the rest is untouched."""
    assert "windows dropped" in ask(path, "drop", *words, "--yes")
    found = json.loads(ask(path, "stats", "--json"))
    assert [window["seq"] for window in json.loads(ask(path, "list", "--json"))["windows"]] == left
    assert found["totals"]["dropped"] == found["untold"]["dropped"] == 5 - len(left)


def test_a_running_device_is_not_robbed(path: Path) -> None:
    """It would send what was dropped; who asks is told how to do it."""
    outbox = Outbox(path, BOUNDS)
    with pytest.raises(Problem, match="stop it"):
        ask(path, "drop", "--all", "--yes")
    outbox.close()
    assert "drop all for good?" in ask(path, "drop", "--all", input="n\n")
    assert json.loads(ask(path, "stats", "--json"))["windows"] == 5


@pytest.mark.parametrize("words", [(), ("--all", "--seqs", "3"), ("--seqs", "x"), ("--seqs", "9-3")])
def test_what_to_drop_must_be_said(path: Path, words: tuple[str, ...]) -> None:
    """Nothing is dropped by guessing."""
    with pytest.raises(Problem):
        ask(path, "drop", "--yes", *words)


def test_an_outbox_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A wrong id is the usual reason."""
    for words in (("stats",), ("list",), ("drop", "--all", "--yes")):
        with pytest.raises(Problem, match="there is none"):
            ask(tmp_path / "cam-1.outbox", *words)
    assert not list(tmp_path.iterdir())


def test_status_names_who_shed_and_who_misses(capsys: pytest.CaptureFixture[str]) -> None:
    """The device says what it shed, its edge what it was told and what it misses; who lost nothing has no line."""
    watch = Watch(None, Topics())  # type: ignore[arg-type]
    device, edge = Node("device", "cam-1", "edge-1", "online"), Node("edge", "edge-1", "", "online")
    device.figures.counters.update(windows_shed_full=7, windows_answered=100)
    edge.figures.counters.update(windows_shed_told_full=7, windows_missing=2, packets_flooded=9)
    edge.facts = {"missing.cam-1": 2, "flooded.cam-3": 9}
    quiet, loud = (Node("device", name, "edge-1", "online") for name in ("cam-2", "cam-3"))
    watch.nodes = {(node.tier, node.id): node for node in (device, edge, quiet, loud)}
    _print(watch, False, "mqtt://broker")
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "edge-1: 2 windows are missing; 9 packets were too many; told of 7 full",
        "cam-1: 2 windows are missing; shed 7 full",
        "cam-3: 9 packets were too many",
    ]
