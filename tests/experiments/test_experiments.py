"""The experiments from request to report, at the smallest site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from megace2_iot.cli.app import app
from megace2_iot.cli.experiments import NAMES, figure3, personalisation, request
from megace2_iot.cli.experiments.request import Request, Scale

TINY = Scale(edges=2, devices=1, samples=20, seconds=12.0, every=4.0, central_rounds=2)
FEW = ("centralised", "local", "sync", "latched-adapter", "scaffold")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "QUICK", TINY)
    monkeypatch.setattr(figure3, "ARMS", tuple(arm for arm in figure3.ARMS if arm.name in FEW))


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["experiment", *arguments, "--quick", "--json"], catch_exceptions=False)
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_figure_3_reports_every_arm(tmp_path: Path) -> None:
    """A row and a curve an arm; versions, digest and command; the second time nothing is run again."""
    first = run("figure3", "--out", str(tmp_path))
    assert len(first["rows"]) == first["runs"] == len(FEW)
    assert all(0.3 < row["accuracy"] < 1 for row in first["rows"])
    assert len(first["data"]["digests"]["0"]) == 64
    assert first["versions"]["torch"]
    assert {path.name for path in tmp_path.iterdir()} >= {"figure3.json", "figure3.md", "figure3.svg", "results.md"}
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "figure3").iterdir()}
    again = run("figure3", "--out", str(tmp_path))
    assert again["rows"] == first["rows"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "figure3").iterdir()} == files


@pytest.mark.slow
def test_personalisation_reports_every_way(tmp_path: Path) -> None:
    """Own data, others' data and the movement of the global model, with adapters kept and sent."""
    report = run("personalisation", "--out", str(tmp_path))
    rows = {row["way"]: row for row in report["rows"]}
    assert list(rows) == list(personalisation.ROWS.values())
    assert all(0.3 < row["own data"] < 1 > row["others' data"] for row in rows.values())
    assert rows["adapter, inserted"]["parameters"] < 0.05 * rows["full fine-tuning"]["parameters"]
    found = report["gains"]["inserted"]
    assert [each["edge"] for each in found["edges"]] == ["edge-1", "edge-2"]
    assert found["over_edges"]["mean"] == pytest.approx(rows["adapter, inserted"]["gain"])
    lost = [each["edge"] for each in found["edges"] if each["gain"] < 0]
    assert all(name in report["notes"][0] for name in lost)
    assert rows["base"]["answer drift"] > 0 < rows["adapters sent and averaged"]["answer drift"]


def test_an_unknown_experiment_is_told(tmp_path: Path) -> None:
    """With the names that there are."""
    with pytest.raises(Exception, match=f"no experiment 'figure9': choose one of {', '.join(NAMES)}"):
        run("figure9")


def test_another_setting_is_another_run() -> None:
    """What a result follows from is in its digest."""
    plain, skewed = (Request(Path(), alpha=alpha).settings() for alpha in (None, 0.3))
    assert plain != skewed
    assert plain != Request(Path(), quick=True).settings()
    assert plain != Request(Path(), drop_out=0.1).settings()
