"""The configuration packet: from a profile and a load, by pure rules."""

from __future__ import annotations

import pytest

from edge_gateway.scheduling import Load, Needs, SchedulingSettings, Unservable, plan
from megace2_iot.messages import DeviceConfig, DeviceProfile, Hardware

NANO = Needs({"text": 24, "audio": 12, "vision": 10}, 16, "nano", "f" * 16, "a" * 64, 4000)
WIDE = Needs({"text": 300, "audio": 74, "vision": 35}, 40, "mult", "f" * 16, "a" * 64, 4000)
JETSON = Hardware(cores=6, memory=8 << 30)


def profile(needs: Needs = NANO, **more: object) -> DeviceProfile:
    fields = {"hardware": JETSON, "dims": dict(needs.dims), "rate": 10.0, "can_train": True, **more}
    return DeviceProfile.model_validate(fields)


def config(given: DeviceProfile, needs: Needs = NANO, load: Load | None = None, **settings: object) -> DeviceConfig:
    planned = plan(given, needs, load or Load(), SchedulingSettings.model_validate(settings))
    assert isinstance(planned, DeviceConfig), planned
    return planned


def refusal(given: DeviceProfile, needs: Needs = NANO, **settings: object) -> str:
    planned = plan(given, needs, Load(), SchedulingSettings.model_validate(settings))
    assert isinstance(planned, Unservable)
    return planned.reason


def test_the_stage_is_the_smaller_of_both() -> None:
    """Values a step: 46 features against three times 16 of Z[0]; 409 against three times 40."""
    assert config(profile()).stage == "features"
    assert config(profile(WIDE), WIDE).stage == "embedded"


def test_what_either_side_cannot_do_is_not_chosen() -> None:
    """An edge that takes one stage only, a device that makes one only."""
    assert config(profile(WIDE), WIDE, stages=("features",)).stage == "features"
    assert config(profile(stages=("embedded",))).stage == "embedded"
    assert "can send embedded, this edge takes features" in refusal(profile(stages=("embedded",)), stages=("features",))


def test_a_refusal_lists_both_dimensions_and_what_to_do() -> None:
    """In one order, so that a person can compare them."""
    reason = refusal(profile(dims={"vision": 35, "text": 300}))
    assert "it sends text 300, vision 35, the model takes text 24, audio 12, vision 10" in reason
    assert "start the device with matching features" in reason


def test_nothing_at_all_cannot_be_served() -> None:
    """A profile without a modality is refused, not configured."""
    assert "it sends nothing" in refusal(profile(dims={}))


def test_a_part_of_the_modalities_is_enough() -> None:
    """A device without a camera is a device."""
    assert config(profile(dims={"text": 24, "audio": 12})).train


def test_a_recording_of_another_stem_is_refused() -> None:
    """Its Z[0] cannot be embedded again; of the same stem it is served, at the model's width."""
    assert "embedded by stem bbbbbbbbbbbb" in refusal(profile(embedded_by="b" * 64))
    assert config(profile(dims={"text": 16}, embedded_by="a" * 64)).stage in ("features", "embedded")


@pytest.mark.parametrize(
    ("more", "settings", "trains"),
    [
        ({}, {}, True),
        ({"can_train": False}, {}, False),
        ({}, {"train": False}, False),
        ({"hardware": Hardware(memory=512 << 20)}, {}, False),
    ],
)
def test_who_trains(more: dict[str, object], settings: dict[str, object], trains: bool) -> None:
    """Who says it can, has the memory for it, and is asked to."""
    assert config(profile(**more), **settings).train is trains


def test_a_busy_edge_asks_for_less() -> None:
    """Coarser codes and a bounded rate; unlimited where there is room."""
    calm, busy = config(profile()), config(profile(), load=Load(busy=0.99))
    assert (calm.rate, calm.relative_bound) == (0.0, 0.02)
    assert 0 < busy.rate <= 10.0 * 0.85 / 0.99
    assert busy.relative_bound == 0.04


def test_a_small_change_of_load_changes_nothing() -> None:
    """A configuration is published when it differs, so it must not follow every reading."""
    loads = [0.91, 0.92, 0.93, 0.94]
    assert len({config(profile(), load=Load(busy=busy)).rate for busy in loads}) == 1
    assert config(profile(), load=Load(busy=0.2)) == config(profile(), load=Load(busy=0.7, arriving=99.0))


def test_labels_stay_where_they_are_by_default() -> None:
    """Sharing them is a deliberate setting of the edge."""
    assert not config(profile()).share_labels
    assert config(profile(), share_labels=True).share_labels
