"""Finished runs are kept, read again, and never run twice; what is known is reported as means."""

from __future__ import annotations

from pathlib import Path

import pytest

from megace2_iot.cli.experiments import finished as module
from megace2_iot.cli.experiments.finished import Finished, Result, run_all
from megace2_iot.cli.experiments.statistics import final, mean_curve, on_grid, reached, spread

POINTS = [{"at": 0.0, "acc2": 0.5}, {"at": 10.0, "acc2": 0.7}, {"at": 19.0, "acc2": 0.8}, {"at": 20.0, "acc2": 0.9}]


def test_a_finished_arm_is_not_run_again(tmp_path: Path) -> None:
    """Nor after a restart; another setting or seed is another run."""
    ran: list[str] = []

    def work(name: str) -> Result:
        ran.append(name)
        return {"points": []}

    for _ in range(2):
        finished = Finished(tmp_path)
        finished.of("latched", 0, {"seconds": 1}, lambda: work("first"))
        finished.of("latched", 1, {"seconds": 1}, lambda: work("another seed"))
        finished.of("latched", 0, {"seconds": 2}, lambda: work("another setting"))
    assert ran == ["first", "another seed", "another setting"]


def test_a_run_of_other_code_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever raises `RESULTS` makes every result again; a result says which code it is of."""
    result = Finished(tmp_path).of("latched", 0, {}, dict)
    assert result["code"] == module.code()
    assert len(result["source"]) == 12
    before = Finished(tmp_path).path("latched", 0, {})
    monkeypatch.setattr(module, "RESULTS", module.RESULTS + 1)
    assert Finished(tmp_path).path("latched", 0, {}) != before


def test_showing_runs_nothing(tmp_path: Path) -> None:
    """What is finished is returned, the rest is left out."""
    Finished(tmp_path).of("a", 0, {}, dict)
    shown = Finished(tmp_path, show=True)

    def run(arm: str, seed: int, tell: object) -> Result:
        return shown.of(arm, seed, {}, lambda: pytest.fail("it ran"))

    results, interrupted = run_all(shown, "test", ["a", "b"], 2, run)
    assert (interrupted, [len(runs) for runs in results.values()]) == (False, [1, 0])


def test_ctrl_c_leaves_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The runs so far are returned, and the next call makes the rest only."""
    finished, ran = Finished(tmp_path), list[tuple[str, int]]()

    def work(arm: str, seed: int) -> Result:
        if (arm, seed) == ("b", 1) and not ran.count(("b", 0)) > 1:
            ran.append(("b", 0))
            raise KeyboardInterrupt
        ran.append((arm, seed))
        return {}

    def run(arm: str, seed: int, tell: object) -> Result:
        return finished.of(arm, seed, {}, lambda: work(arm, seed))

    results, interrupted = run_all(finished, "test", ["a", "b"], 2, run)
    assert (interrupted, [len(runs) for runs in results.values()]) == (True, [2, 1])
    results, interrupted = run_all(finished, "test", ["a", "b"], 2, run)
    assert (interrupted, [len(runs) for runs in results.values()]) == (False, [2, 2])
    assert ran[-1] == ("b", 1)
    assert "ended by Ctrl-C after 3 of 4" in capsys.readouterr().err


def test_means_and_deviations() -> None:
    """Of a sample; nothing is made up where a seed has no value."""
    assert spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert spread([0.5]) == 0.5
    assert spread([1.0, None]) is None


def test_figures_of_a_curve() -> None:
    """The last quarter's mean, where the target is first reached, and the newest model at each place."""
    assert final(POINTS, "acc2") == pytest.approx(0.85)
    assert reached(POINTS, 0.75, "at") == 19.0
    assert reached(POINTS, 0.95, "at") is None
    assert on_grid(POINTS, "at", [0.0, 9.0, 10.0])[:3] == [0.5, 0.5, 0.7]
    grid, mean, deviation = mean_curve([POINTS, POINTS], "at", steps=3)
    assert (grid, mean, deviation) == ([0.0, 10.0, 20.0], [0.5, 0.7, 0.9], [0.0, 0.0, 0.0])
