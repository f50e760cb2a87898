"""What the cloud says to an update, check by check."""

from __future__ import annotations

from typing import Any

import pytest
from folds import LAYOUT, made
from pydantic import ValidationError

from cloud_aggregator.checks import CheckSettings, Standing, doubts, known_groups, refusal
from megace2_iot.update_checks import FEWEST

ONES = [1.0] * FEWEST
HERE = Standing(lag=0, recent=ONES)


def said(settings: CheckSettings, norm: float = 1.0, standing: Standing = HERE, **about: Any) -> list[str]:
    return [objection.check for objection in doubts(made([0, 0, 0], **about)[0], norm, standing, settings)]


def test_an_ordinary_update_is_not_doubted() -> None:
    """The defaults leave honest edges alone."""
    assert said(CheckSettings(), n=5000) == []
    assert refusal(made([0, 0, 0])[0], "f", LAYOUT, 1, False) is None


@pytest.mark.parametrize(
    ("about", "rolled_back", "check", "words"),
    [
        ({"family": "other"}, False, "schema", "aggregates family f, the update is of other"),
        ({"delta": b"short"}, False, "schema", "delta of 5 bytes, expected 12"),
        ({"n": 0}, False, "schema", "no examples"),
        ({}, True, "rolled_back", "release 1 was taken back; adopt release 4 and train from it"),
    ],
)
def test_what_can_never_be_folded_is_refused(about: dict[str, Any], rolled_back: bool, check: str, words: str) -> None:
    """By the offer alone."""
    row, _ = made(about.pop("delta", [0, 0, 0]), **about)
    objection = refusal(row, "f", LAYOUT, 4, rolled_back)
    assert objection is not None
    assert objection.check == check
    assert words in objection.detail


def test_a_norm_far_above_the_usual_is_doubted() -> None:
    """And told with both numbers."""
    assert said(CheckSettings(), norm=10.0) == []
    assert said(CheckSettings(), norm=10.1) == ["norm"]
    assert said(CheckSettings(max_norm_ratio=0), norm=1e30) == []


def test_the_first_norms_are_measured_by_the_model() -> None:
    """Nobody's first update replaces the model."""
    first = Standing(lag=0, recent=ONES[1:], model=4.0)
    assert said(CheckSettings(), norm=2.0, standing=first) == []
    assert said(CheckSettings(), norm=2.1, standing=first) == ["norm"]
    assert said(CheckSettings(max_first_norm=0), norm=1e30, standing=first) == []


def test_an_edge_has_no_more_examples_than_were_registered() -> None:
    """By its own volume where it has one, else by everybody's."""
    settings = CheckSettings(max_examples=100, volumes={"e1": 5000})
    assert said(settings, edge="e1", n=5000) == []
    assert said(settings, edge="e1", n=5001) == ["examples"]
    assert said(settings, edge="e2", n=101) == ["examples"]
    assert said(CheckSettings(), n=1e9) == ["examples"]
    assert said(CheckSettings(max_examples=0), n=1e9) == []


def test_an_old_base_is_doubted() -> None:
    """Counted in releases."""
    settings = CheckSettings(max_lag=3)
    assert said(settings, standing=Standing(3, ONES)) == []
    assert said(settings, standing=Standing(4, ONES)) == ["lag"]
    assert said(CheckSettings(max_lag=0), standing=Standing(9999, ONES)) == []


def test_all_that_speaks_against_an_update_is_told() -> None:
    """A person who decides should know everything."""
    assert said(CheckSettings(), norm=99, n=1e9, standing=Standing(99, ONES)) == ["norm", "examples", "lag"]


def test_a_volume_is_a_number_of_an_edge() -> None:
    """A slip in the settings is told at the start."""
    for wrong in ({"Edge 1": 5}, {"e1": 0}, {"e1": "many"}):
        with pytest.raises(ValidationError):
            CheckSettings.model_validate({"volumes": wrong})


def test_names_of_a_stranger_stay_out_of_the_ledger() -> None:
    """Unknown groups could be anything, and any number of them."""
    row, _ = made([0, 0, 0], n=3)
    row.num_examples["x" * 100] = 1  # type: ignore[index]
    assert known_groups(row, LAYOUT) == {"a": 3, "b": 3}
