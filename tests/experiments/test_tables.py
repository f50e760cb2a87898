"""The tables: counted ones are the paper's, trained ones hold every method, and nothing is trained twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from megace2_iot.cli.experiments import NAMES, table1, table2, table4, table5, tables
from megace2_iot.cli.experiments.request import Request
from megace2_iot.cli.experiments.tables import BASELINES, OURS
from megace2_iot.model.runs import MEGACE2


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
    """The second time everything is read; a row has each measure and the paper's figures."""
    arms = {"text_only": "text only", MEGACE2: "Mega-CE2", tables.FEDERATED: "federated"}
    request = Request(out=tmp_path, seeds=1, quick=True, command="test")
    published = {MEGACE2: (86.6, 59.7, 0.514)}
    first = tables.run_table("table4", "A table", request, arms, published, [])
    monkeypatch.setattr(tables, "train", None)
    monkeypatch.setattr(tables, "federate", None)
    again = tables.run_table("table4", "A table", request, arms, published, [])
    assert again.rows == first.rows
    assert [row["method"] for row in first.rows] == [*arms.values(), "ridge regression"]
    ours = first.rows[1]
    assert ours["paper acc2"] == 86.6
    assert all(0 < ours[name] < 3 for name in ("acc2", "f1", "mae"))  # type: ignore[operator]
