"""The tables: counted ones are the paper's, trained ones hold every method, and nothing is trained twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from megace2_iot.cli.experiments import NAMES, request, table1, table2, table4, table5, tables
from megace2_iot.cli.experiments.corpus import few
from megace2_iot.cli.experiments.request import Request, Scale
from megace2_iot.cli.experiments.tables import BASELINES, OURS
from megace2_iot.datasets.synthetic import synthetic
from megace2_iot.model.runs import MEGACE2
from megace2_iot.problems import Problem


def test_table_5_is_the_papers() -> None:
    """Each figure that it prints, to a hundredth of a megabyte or a third of a per cent."""
    found = table5.counts("paper")
    for part, published in table5.PUBLISHED.items():
        assert found[part] * 4e-6 == pytest.approx(published, rel=3e-3, abs=0.01), part


def test_every_method_has_a_row() -> None:
    """And every published figure belongs to one."""
    for table in (table1, table2):
        assert table.PUBLISHED.keys() <= {**BASELINES, **OURS}.keys()
    assert table4.PUBLISHED.keys() == table4.ARMS.keys()
    assert {"table1", "table2", "table4", "table5"} < set(NAMES)


def test_finished_runs_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time everything is read; a row has each measure and the paper's figures, and ours are compared."""
    tiny = Scale(edges=2, devices=1, samples=15, seconds=8.0, every=4.0, central_rounds=1)
    monkeypatch.setattr(request, "QUICK", tiny)
    arms = {"text_only": "text only", **OURS}
    asked = Request(out=tmp_path, seeds=1, quick=True, command="test")
    published = {MEGACE2: (86.6, 59.7, 0.514)}
    first = tables.run_table("table4", "A table", asked, arms, published, [])
    monkeypatch.setattr(tables, "train", None)
    monkeypatch.setattr(tables, "federate", None)
    again = tables.run_table("table4", "A table", asked, arms, published, [])
    assert again.rows == first.rows
    assert [row["method"] for row in first.rows] == [*arms.values(), "ridge regression"]
    against = first.details["minus_centralised"]
    centralised, federated, _ = (row["acc2"] for row in first.rows[1:4])
    assert against[tables.FEDERATED]["by_row"]["mean"] == pytest.approx(federated - centralised)  # type: ignore[operator]
    assert against[tables.PERSONAL]["groups"] == 8
    ours = first.rows[1]
    assert ours["paper acc2"] == pytest.approx(0.866)
    assert all(0 < ours[name] < 3 for name in ("acc2", "f1", "mae"))  # type: ignore[operator]


def test_a_large_data_set_is_thinned_for_a_quick_run() -> None:
    """Train rows spread over all of them; what is tested stays, and a note says it."""
    whole = synthetic(0)
    thin = few(whole, most=100)
    train = thin.split("train")
    assert 50 < len(train) <= 100
    assert thin.split("test") == whole.split("test")
    assert {sample.group for sample in train} == {sample.group for sample in whole.split("train")}
    assert f"quick: {len(train)} of {len(whole.split('train')):,} train rows are used" in thin.notes
    assert few(thin, most=len(train)) is thin


def test_parts_that_need_a_missing_modality_are_left_out(tmp_path: Path) -> None:
    """Their rows have the paper's figures alone, and a note names them; without train rows it says what to do."""
    data = tmp_path / "words.csv"
    lines = [f"{'good' if n % 3 else 'bad'} {n},{n % 3 - 1},{'test' if n % 4 == 0 else 'train'}" for n in range(40)]
    data.write_text("\n".join(["text,label,mode", *lines]) + "\n")
    report = table4.run(Request(tmp_path, data=str(data), seeds=1, quick=True))
    assert report.title == "Table 4: ablation, here on words (text only)"
    found = {row["method"]: row["acc2"] for row in report.rows}
    assert [name for name, value in found.items() if value is not None] == ["text only", "Mega-CE2", "ridge regression"]
    assert any("Left out, for they need it: audio only, video only, only V,A->L" in note for note in report.notes)
    data.write_text("text,label,mode\nso good,2,test\n")
    with pytest.raises(Problem, match="no labelled train rows: --split"):
        table4.run(Request(tmp_path, data=str(data), seeds=1, quick=True))
