"""What people ask of the cloud goes through its ledger, beside it or before it starts."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_aggregator.ledger import is_held, visit
from cloud_aggregator.requests import MOST_WAITING, REMEMBERED, Request, Requests, Told
from cloud_aggregator.store import Store, StoreError
from megace2_iot.problems import Problem


def test_a_request_waits_until_it_is_settled(tmp_path: Path) -> None:
    """Written by one program, settled by another, and its answer read by the first."""
    with Store.open(tmp_path, durable=False) as store, visit(tmp_path) as ledger:
        asking, cloud = Requests(ledger), Requests(store.ledger)
        number = asking.put("rollback", "3")
        assert asking.outcome(number) is None
        assert cloud.waiting() == [Request(number, "rollback", "3")]
        cloud.settle(number, Told(True, "done"))
        assert (cloud.waiting(), asking.outcome(number)) == ([], Told(True, "done"))


def test_a_request_outlives_everybody(tmp_path: Path) -> None:
    """It may be made while no cloud runs, and is there when one starts."""
    with Store.open(tmp_path, durable=False):
        pass
    with visit(tmp_path) as ledger:
        assert not is_held(tmp_path)
        number = Requests(ledger).put("drop", "*")
    with Store.open(tmp_path, durable=False) as store:
        assert Requests(store.ledger).waiting() == [Request(number, "drop", "*")]


def test_requests_are_bounded(tmp_path: Path) -> None:
    """A script that asks without end is told; what was settled long ago is deleted."""
    with Store.open(tmp_path, durable=False) as store:
        requests = Requests(store.ledger)
        for number in range(1, REMEMBERED + 3):
            assert requests.put("drop", "*") == number
            requests.settle(number, Told(True, ""))
        assert (requests.outcome(2), requests.outcome(3)) == (None, Told(True, ""))
        for _ in range(MOST_WAITING):
            requests.put("drop", "*")
        with pytest.raises(Problem, match="100 requests wait"):
            requests.put("drop", "*")


def test_a_visitor_needs_a_ledger(tmp_path: Path) -> None:
    """A mistyped folder is not made into one."""
    with pytest.raises(StoreError, match="holds no ledger"), visit(tmp_path / "other"):
        pass
    assert not (tmp_path / "other").exists()


def test_a_visitor_does_not_bring_a_ledger_up_to_date(tmp_path: Path) -> None:
    """An older cloud may be running on it."""
    with sqlite3.connect(tmp_path / "ledger.sqlite") as older:
        older.execute("PRAGMA user_version = 1")
    older.close()
    with pytest.raises(StoreError, match="start the cloud once"), visit(tmp_path):
        pass


LOOKER = """
import sys
from pathlib import Path
from cloud_aggregator.ledger import is_held
print(flush=True)
while True:
    assert is_held(Path(sys.argv[1])) in (True, False)
"""


def test_a_cloud_starts_while_people_look(tmp_path: Path) -> None:
    """Whether a cloud runs is asked by taking its lock for an instant; that must not look like another cloud."""
    (tmp_path / "lock").touch()
    with subprocess.Popen([sys.executable, "-c", LOOKER, str(tmp_path)], stdout=subprocess.PIPE) as looker:
        assert looker.stdout is not None
        looker.stdout.readline()
        for _ in range(20):
            with Store.open(tmp_path, durable=False):
                assert is_held(tmp_path)
        looker.kill()
