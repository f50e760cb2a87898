"""Held updates: kept as long as there is room, given up fairly, never forgotten."""

from __future__ import annotations

from pathlib import Path

from folds import Cloud, cloud

from cloud_aggregator.checks import CheckSettings
from cloud_aggregator.store import VerdictRow

TIGHT = {"max_norm_ratio": 0, "max_first_norm": 0, "max_examples": 10}


def held(cloud: Cloud, number: int, edge: str = "e1") -> str:
    """The id of an update with too many examples."""
    outcome, id = cloud.take([number, 0, 0], edge=edge, n=11)
    assert outcome.verdict == "quarantined"
    return id


def test_a_held_update_changes_nothing_and_survives(tmp_path: Path) -> None:
    """Its body and its base are on disk after a restart, whatever was pruned meanwhile."""
    checks = CheckSettings(**TIGHT)
    with cloud(tmp_path, checks) as running:
        id = held(running, 7)
        for number in range(5):
            assert running.take([number, 0, 0], base=running.version, edge="e2")[0].verdict == "accepted"
        running.store.prune("f", 2)
    with cloud(tmp_path, checks) as running:
        assert (running.folding.quarantine.count(), running.version) == (1, 6)
        assert running.store.journal.pending() == []
        assert running.release(id).verdict == "accepted"
        assert running.folding.quarantine.count() == 0


def test_a_dropped_update_leaves_its_row(tmp_path: Path) -> None:
    """With what it was held for; its body goes."""
    with cloud(tmp_path, CheckSettings(**TIGHT)) as running:
        id = held(running, 7)
        row, _ = running.store.journal.find(id) or (None, None)
        assert running.folding.quarantine.drop(id)
        assert not running.folding.quarantine.drop(id)
        verdict = running.store.journal.verdict_of(id)
        assert verdict is not None
        assert verdict.verdict == "dropped"
        assert verdict.reason.startswith("dropped by hand; it was held for examples: 11 behind a")
        assert row is not None
        assert not running.store.blobs.has(row.sha256)
        assert not running.folding.quarantine.drop("0" * 64)


def test_all_can_be_dropped(tmp_path: Path) -> None:
    """After an attack nobody types thirty ids."""
    with cloud(tmp_path, CheckSettings(**TIGHT)) as running:
        ids = [held(running, number) for number in range(3)]
        assert running.folding.quarantine.drop_all() == 3
        assert {running.store.journal.verdict_of(id).verdict for id in ids} == {"dropped"}


def test_a_flood_pushes_its_own_updates_out(tmp_path: Path) -> None:
    """The one that another edge has waiting for a person stays."""
    with cloud(tmp_path, CheckSettings(**TIGHT, quarantine=3)) as running:
        honest = held(running, 0, "honest")
        flood = [held(running, number, "hostile") for number in range(1, 6)]
        left = [id for id in (honest, *flood) if running.store.journal.verdict_of(id).verdict == "quarantined"]
        assert left == [honest, *flood[-2:]]
        reason = running.store.journal.verdict_of(flood[0]).reason
        assert reason.startswith("pushed out of a full quarantine; it was held for examples")


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    """One that does not fit at all is given up at once, and counted."""
    with cloud(tmp_path, CheckSettings(**TIGHT, quarantine_bytes=24)) as running:
        ids = [held(running, number) for number in range(3)]
        assert [running.store.journal.verdict_of(id).verdict for id in ids] == ["dropped", "quarantined", "quarantined"]
    with cloud(tmp_path / "other", CheckSettings(**TIGHT, quarantine_bytes=11)) as running:
        outcome, id = running.take([1, 2, 3], n=11)
        assert outcome.pushed_out == 1
        assert running.store.journal.verdict_of(id).verdict == "dropped"


def test_a_held_update_is_not_taken_for_refused_by_a_crash(tmp_path: Path) -> None:
    """What a cloud journalled but did not judge before it died is judged at the next start."""
    from folds import made

    checks = CheckSettings(**TIGHT)
    with cloud(tmp_path, checks) as running:
        row, body = made([1, 1, 1], n=11)
        running.store.journal.receive(row, body)
    with cloud(tmp_path, checks) as running:
        (waiting,) = running.store.journal.pending()
        assert running.folding.take(waiting, running.store.journal.body_of(waiting.sha256)).verdict == "quarantined"
        verdict = running.store.journal.verdict_of(row.id)
    assert verdict is not None
    assert verdict == VerdictRow("quarantined", verdict.reason, None)
