"""The page of results: every report has its section, what is missing or small is said, and links lead somewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from megace2_iot.cli.app import app
from megace2_iot.cli.experiment import _data_of
from megace2_iot.cli.experiments import NAMES, page, tables
from megace2_iot.cli.experiments.page import shown
from megace2_iot.cli.experiments.report import Report, _fitting, on
from megace2_iot.cli.experiments.request import Request
from megace2_iot.problems import Problem

RUN = {"seconds": 60.0, "cpu_seconds": 50.0, "date": "2026-01-02", "source": "abc"}


def report(out: Path, **fields: Any) -> dict[str, Any]:
    """A table with one finished run of two, written to `out`."""
    rows = [{"method": "ours", "acc2": (0.8, 0.01), "paper acc2": 0.853}, {"method": "ridge", "acc2": 0.7}]
    made = Report(
        name="table1",
        title="Table 1: methods, here on mosi",
        request=Request(out, seeds=2, quick=True, command="megace2 experiment table1 --data table1=/home/me/mosi.npz"),
        columns=("method", "acc2", "paper acc2"),
        rows=rows,
        results={"ours": [RUN]},
        data={"name": "mosi", "digests": {0: "d" * 64}},
        notes=["As said (docs/readings.md 17)."],
        readings={"paper acc2": [17]},
        details={"dots": tables.DOTS},
    )
    return {**made.write(out), **fields}


def test_a_section_has_figures_footnotes_and_how_it_was_made(tmp_path: Path) -> None:
    """The paper's figure beside ours, what is small or missing, and no folder of the machine."""
    report(tmp_path)
    text = (tmp_path / "table1.md").read_text()
    assert "| method | acc2 | paper acc2 [17] |" in text
    assert "| ours | 0.800 ± 0.010 | 0.853 |" in text
    assert "**Not complete**: 1 of 2 runs" in text
    assert page.QUICK in text
    assert "`megace2 experiment table1 --data table1=mosi.npz`, 2026-01-02" in text
    assert "sha256 `dddddddddddd`" in text


def test_the_page_links_to_readings_and_pictures_beside_it(tmp_path: Path) -> None:
    """Relative links; pictures are copied where the page is not with the reports."""
    out, docs = tmp_path / "out", tmp_path / "docs"
    out.mkdir()
    docs.mkdir()
    (docs / "readings.md").write_text("17. So.\n")
    report(out)
    page.write(docs / "results.md", out, {"table2": "no data"})
    text = (docs / "results.md").read_text()
    assert "acc2 [[17]](readings.md)" in text
    assert "([readings](readings.md) 17)" in text
    assert "[Table 1: methods, here on mosi](#table-1-methods-here-on-mosi) | 1 of 2 | quick, not complete |" in text
    assert "| table2 | none | not run: no data |" in text
    assert "(results/table1.svg)" in text
    assert (docs / "results" / "table1.svg").read_text().startswith("<?xml")


def test_a_report_of_another_format_is_not_run_yet(tmp_path: Path) -> None:
    """An older version's stays where it is; a broken file is told."""
    (tmp_path / "table1.json").write_text(json.dumps(report(tmp_path, format=1)))
    assert page.read(tmp_path) == {}
    (tmp_path / "table1.json").write_text("{")
    with pytest.raises(Problem, match=r"table1\.json cannot be read"):
        page.read(tmp_path)


def test_a_command_is_shown_without_folders() -> None:
    """Options, names and what is no path stay."""
    typed = "megace2 experiment all --data /a/b/mosi.npz --data table2=~/c.csv --data figure3=synthetic --out ./x/y"
    assert shown(typed) == "megace2 experiment all --data mosi.npz --data table2=c.csv --data figure3=synthetic --out y"


def test_data_of_each_experiment(tmp_path: Path) -> None:
    """One data set for all, and others for some; what cannot be meant is refused before anything runs."""
    file = tmp_path / "a=b.csv"
    file.touch()
    assert _data_of(("table1", "figure3"), []) == ["synthetic", "synthetic"]
    assert _data_of(("table1", "figure3"), [str(file), "figure3=synthetic"]) == [str(file), "synthetic"]
    for given, told in (
        (["synthetic", str(file)], "say for which experiment"),
        ([f"tabel1={file}"], "NAME is one of"),
        ([f"table2={file}"], "does not run table2"),
        (["missing.npz"], "no data set 'missing.npz'"),
    ):
        with pytest.raises(Problem, match=told):
            _data_of(("table1", "figure3"), given)


def test_all_goes_on_where_one_cannot_run(tmp_path: Path) -> None:
    """Its reason stands on the page and is the command's problem; --show runs nothing."""
    data = tmp_path / "words.csv"
    data.write_text("text,label,mode\nso good,2,train\n")
    run = ["experiment", "all", "--show", "--quick", "--out", str(tmp_path), "--data", f"table1={data}"]
    result = CliRunner().invoke(app, run)
    assert isinstance(result.exception, Problem)
    assert "words has no labelled test rows" in str(result.exception)
    text = (tmp_path / "results.md").read_text()
    assert "| table1 | none | not run: words has no labelled test rows" in text
    assert "Table 5: parameters](#table-5-parameters) | counted" in text
    assert f"| {NAMES[-1]} | none | not run yet |" in text


def test_a_narrow_terminal_gets_the_first_columns() -> None:
    """Whole words, instead of every column cut short."""
    cells = {"way": ["adapter, inserted"], "own data": ["0.860 ± 0.010"], "gain": ["0.047 ± 0.026"]}
    assert _fitting(cells, 150) == ["way", "own data", "gain"]
    assert _fitting(cells, 40) == ["way", "own data"]


def test_a_title_names_the_data() -> None:
    """And what they lack."""
    assert on("T", "synthetic", {"text": 1, "audio": 1, "vision": 1}) == "T, here on the built-in corpus"
    assert on("T", "mosei", {"text": 1}) == "T, here on mosei (text only)"
