"""What becomes of updates between the journal and the next release: judged, held, released by hand, rolled back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folds import LAYOUT, LOOSE, Cloud, cloud, made
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_aggregator.checks import CheckSettings
from cloud_aggregator.history import entries
from cloud_aggregator.store import VerdictRow
from megace2_iot.problems import Problem
from megace2_iot.update_checks import FEWEST

FEW = CheckSettings(max_examples=10, max_norm_ratio=0, max_first_norm=0)


def grown(running: Cloud, count: int, edge: str = "e1") -> None:
    """Releases that each add one to every number."""
    for _ in range(count):
        assert running.take([1, 1, 1], base=running.version, edge=edge)[0].verdict == "accepted"


# -- checks ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("delta", "about", "reason"),
    [
        ([np.nan, 0, 0], {}, "finite: "),
        ([1, 0], {}, "schema: a float32 delta of 8 bytes"),
        (b"\x00" * 40, {"codec": "int8"}, "schema: no int8 delta of 3 elements"),
        ([0, 0, 0], {"base": 9}, "need_full: release 9 was never made here"),
        ([3.1e38, 0, 0], {"base": 2}, "not finite"),
    ],
)
def test_what_cannot_be_folded_is_refused(tmp_path: Path, delta: Any, about: dict[str, Any], reason: str) -> None:
    """With the reason in the ledger; no release, and its body is not kept."""
    with cloud(tmp_path) as running:
        running.take([3e38, 0, 0], edge="big")
        before, row = running.version, made(delta, **about)[0]
        outcome, id = running.take(delta, **about)
        assert (outcome.verdict, running.version) == ("refused", before)
        assert reason in outcome.reason
        assert running.store.journal.verdict_of(id) == VerdictRow("refused", outcome.reason, None)
        assert not running.store.blobs.has(row.sha256)


def test_norms_are_remembered_over_a_restart(tmp_path: Path) -> None:
    """What is usual is read from the ledger; a held update does not become usual by trying."""
    checks = CheckSettings()
    with cloud(tmp_path, checks) as running:
        for _ in range(FEWEST):
            assert running.take([0, 0, 0.1], base=running.version)[0].verdict == "accepted"
        for number in range(20):
            assert running.take([0, 2, 0], base=running.version, name=str(number))[0].verdict == "quarantined"
    with cloud(tmp_path, checks) as running:
        outcome, _ = running.take([0, 0, 1.2], base=running.version)
        assert outcome.reason == "norm: 1.2 is 12 times the median of the last 8, allowed is 10"
        assert running.take([0, 0, 0.4], base=running.version)[0].verdict == "accepted"


# -- by hand --------------------------------------------------------------------------
@pytest.mark.parametrize("rule", ["latched", "rate", "fedasync"])
def test_a_released_update_counts_from_then_on(tmp_path: Path, rule: str) -> None:
    """As if it had arrived now; the model is the same after a restart."""
    with cloud(tmp_path, FEW, rule=rule) as running:
        _, id = running.take([3, 3, 3], edge="e2", n=11)
        grown(running, 1)
        outcome = running.release(id)
        assert outcome.release is not None
        reason = "released by hand; it was held for examples: 11 behind a, its sender has at most 10"
        assert running.store.journal.verdict_of(id) == VerdictRow("accepted", reason, outcome.release.version)
        assert running.store.journal.folded("f").keys() == {"e1", "e2"}
        assert running.model() != running.model(2)
        before = running.take([0, 0, 0], base=running.version)[0].verdict, running.model()
    with cloud(tmp_path, FEW, rule=rule) as running:
        assert running.model() == before[1]
        if rule == "latched":  # e1 has 1 example, e2 has 11
            running.take([0, 0, 0], base=1)
            np.testing.assert_allclose(running.model(), [(1 * 1 + 11 * 4) / 12] * 3, rtol=1e-6)


def test_an_older_update_that_is_released_takes_its_edge_s_place(tmp_path: Path) -> None:
    """It is what the person decided last, and a restart remembers the order of folding, not of arrival."""
    with cloud(tmp_path, FEW) as running:
        _, id = running.take([5, 5, 5], n=11)
        grown(running, 1)
        assert running.model() == [2, 2, 2]
        running.release(id)
        assert running.model() == [6, 6, 6]
        assert running.store.journal.folded("f") == {"e1": id}
    with cloud(tmp_path, FEW) as running:
        running.take([0, 0, 0], edge="e2", n=11 / 1.1)
        np.testing.assert_allclose(running.model(), [(11 * 6 + 10) / 21] * 3, rtol=1e-6)


def test_what_cannot_be_folded_by_hand_stays_held(tmp_path: Path) -> None:
    """A person may try again, or drop it."""
    with cloud(tmp_path, FEW) as running:
        grown(running, 2)
        _, id = running.take([5, 5, 5], base=3, n=11)
        running.folding.roll_back(1)
        outcome = running.release(id)
        assert (outcome.verdict, outcome.reason.partition(":")[0]) == ("refused", "rolled_back")
        assert running.store.journal.verdict_of(id).verdict == "quarantined"


# -- rollback -------------------------------------------------------------------------
def test_a_rollback_is_a_new_release_of_old_content(tmp_path: Path) -> None:
    """Versions never go back, and the ledger says where it came from."""
    with cloud(tmp_path) as running:
        grown(running, 3)
        running.store.note_scores("f", 2, {"acc2": 0.9})
        release = running.folding.roll_back(2)
        assert (release.version, release.source, running.model()) == (5, 2, [2, 2, 2])
        assert running.store.latest("f") == release
        assert release.scores == {"acc2": 0.9}
        assert running.folding.roll_back(2) == release


def test_what_was_taken_back_does_not_come_back(tmp_path: Path) -> None:
    """Neither from the other edges' remembered models, nor by a late update, nor after a restart."""
    with cloud(tmp_path) as running:
        grown(running, 1, "good")
        running.take([1000, 1000, 1000], base=2, edge="bad", n=99)
        bad, id = running.version, made([1000, 1000, 1000], base=2, edge="bad", n=99)[0].id
        running.folding.roll_back(2)
        assert running.store.journal.folded("f") == {}
        late, _ = running.take([1, 1, 1], base=bad, edge="good")
        assert late.reason == "rolled_back: release 3 was taken back; adopt release 4 and train from it"
    with cloud(tmp_path) as running:
        assert running.take([1, 1, 1], base=3, edge="late")[0].reason.startswith("rolled_back: ")
        assert running.take([1, 1, 1], base=4, edge="good")[0].verdict == "accepted"
        assert running.model() == [3, 3, 3]
        assert running.store.journal.verdict_of(id) == VerdictRow("accepted", "", 3)


def test_a_base_before_the_rollback_is_still_one(tmp_path: Path) -> None:
    """An edge that was slow to adopt the bad releases loses nothing."""
    with cloud(tmp_path) as running:
        grown(running, 4)
        running.folding.roll_back(3)
        assert running.take([5, 5, 5], base=2)[0].verdict == "accepted"
        assert running.take([5, 5, 5], base=4)[0].verdict == "refused"


def test_a_base_of_the_same_content_is_as_good(tmp_path: Path) -> None:
    """An edge does not adopt what it has already: it goes on under the number that was taken back."""
    with cloud(tmp_path, CheckSettings(max_lag=3), rule="fedbuff") as running:
        for number in range(5):
            assert running.take([0.1, 0, 0], base=running.version, name=str(number))[0].verdict == "accepted"
        running.folding.roll_back(2)
        assert running.take([0.1, 0, 0], base=6)[0].verdict == "accepted"


def test_lag_is_counted_along_what_the_newest_stands_on(tmp_path: Path) -> None:
    """An edge that still has the very release that was gone back to is not late."""
    with cloud(tmp_path, CheckSettings(max_lag=3)) as running:
        for number in range(9):
            running.take([0.1, 0, 0], base=running.version, name=str(number))
        assert running.take([0.1, 0, 0], base=2)[0].reason.startswith("lag: its base is 8 releases old")
        running.folding.roll_back(2)
        assert running.take([0.1, 0, 0], base=2, name="again")[0].verdict == "accepted"
        assert entries(running.store.ledger, limit=1)[0].lag == 1


def test_norms_that_were_taken_back_are_not_usual(tmp_path: Path) -> None:
    """Who crept up on the bound starts again."""
    with cloud(tmp_path) as running:
        grown(running, 2)
        for _ in range(5):
            running.take([100, 0, 0], base=running.version)
        assert running.store.journal.norms("f", 20)[0] == 100
        running.folding.roll_back(3)
        assert running.store.journal.norms("f", 20) == pytest.approx([3**0.5] * 2)


def test_a_rollback_that_cannot_be_says_why(tmp_path: Path) -> None:
    """And changes nothing."""
    with cloud(tmp_path) as running:
        grown(running, 5)
        running.store.prune("f", 2)
        for version, reason in ((9, "there is no release 9"), (6, "the newest already"), (2, "keep_releases")):
            with pytest.raises(Problem, match=reason):
                running.folding.roll_back(version)
        assert running.version == 6


def test_a_release_of_an_earlier_stem_is_no_choice(tmp_path: Path) -> None:
    """No edge has that stem any more."""
    from megace2_iot.tensors import encode_tensors

    with cloud(tmp_path) as running:
        grown(running, 1)
        running.store.begin_family("f", "{}", encode_tensors(LAYOUT.unflatten(np.zeros(3, np.float32)), {}), b"stem 2")
        with pytest.raises(Problem, match="earlier stem"):
            Cloud(running.store).folding.roll_back(2)


# -- all of it ------------------------------------------------------------------------
KINDS = ["offer", "offer", "offer", "suspicious", "repeat", "release", "drop", "rollback", "restart"]
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 99)), max_size=25)


@given(STEPS, st.sampled_from(["latched", "rate", "fedasync", "fedbuff"]))
@settings(max_examples=120, deadline=None)
def test_whatever_happens_versions_rise_and_nothing_is_folded_twice(steps: list[tuple[str, int]], rule: str) -> None:
    """Updates held and released in any order, dropped, repeated, rolled back, with restarts in between."""
    offered: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        remaining = list(steps)
        while True:
            with cloud(Path(folder), FEW, rule=rule) as running:
                while remaining and remaining[0][0] != "restart":
                    _step(running, offered, *remaining.pop(0))
                    check_invariants(running, offered)
                check_invariants(running, offered)
            if not remaining:
                return
            remaining.pop(0)


def _step(running: Cloud, offered: list[str], kind: str, dice: int) -> None:
    edge, base = f"e{dice % 3}", max(1, running.version - dice % 4)
    if kind in ("offer", "suspicious"):
        n, name = (11, "s") if kind == "suspicious" else (1 + dice % 9, "")
        offered.append(running.take([dice / 99, -1, 1], edge=edge, base=base, n=n, name=f"{name}{len(offered)}")[1])
    elif kind == "rollback":
        if base != running.version:
            running.folding.roll_back(base)
    elif offered:
        id = offered[dice % len(offered)]
        known = running.store.journal.find(id)
        assert known is not None
        if kind == "repeat":
            running.store.journal.turn_away(known[0], "again", None)
        elif known[1].verdict == "quarantined":
            running.release(id) if kind == "release" else running.folding.quarantine.drop(id)


def check_invariants(running: Cloud, offered: list[str]) -> None:
    """Versions without a gap; each update once in the ledger, and in one release at most, which says so."""
    releases = running.store.releases("f")
    assert [release.version for release in releases] == list(range(1, len(releases) + 1))
    made_by = [release.update_id for release in releases if release.update_id]
    assert len(made_by) == len(set(made_by))
    verdicts = {id: running.store.journal.verdict_of(id) for id in offered}
    assert {id: v.version for id, v in verdicts.items() if v.verdict == "accepted"} == {
        release.update_id: release.version for release in releases if release.update_id
    }
    assert running.folding._state.version == releases[-1].version
    np.testing.assert_array_equal(running.folding._state.vector, np.float32(running.model()))


def test_loose_checks_are_off() -> None:
    """The tests of rules above test rules."""
    assert not any((LOOSE.max_norm_ratio, LOOSE.max_first_norm, LOOSE.max_examples, LOOSE.max_lag))
