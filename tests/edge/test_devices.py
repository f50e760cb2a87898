"""The edge's registry: states by session, configurations when they change, refusals once."""

from __future__ import annotations

import pytest

from edge_gateway import devices as module
from edge_gateway.devices import Devices
from edge_gateway.scheduling import Load, Needs, SchedulingSettings, Unservable
from megace2_iot.messages import DeviceConfig, DeviceProfile, Hardware, State

NEEDS = Needs({"text": 24, "audio": 12, "vision": 10}, 16, "nano", "f" * 16, "a" * 64, 4000)
PROFILE = DeviceProfile(dims={"text": 24}, can_train=True, hardware=Hardware(memory=8 << 30))


@pytest.fixture
def devices() -> Devices:
    return Devices(SchedulingSettings(), "clock", 8)


def state(name: str, session: int) -> State:
    return State.model_validate({"state": name, "session": session, "role": "device"})


def register(devices: Devices, id: str, profile: DeviceProfile = PROFILE) -> object:
    record = devices.get(id)
    assert record is not None
    record.profile = profile
    return devices.configure(id, NEEDS, Load())


def test_an_old_will_does_not_undo_a_new_birth(devices: Devices) -> None:
    """The broker may deliver the will of a lost connection after the next one is up."""
    assert devices.note_state("a", state("online", 2)) == "online"
    assert devices.note_state("a", state("offline", 1)) is None
    assert devices.note_state("a", state("offline", 2)) == "offline"


def test_a_forged_session_does_not_last(devices: Devices) -> None:
    """On an open broker anybody can say that a device is gone; its next birth is believed, and so are its own wills."""
    devices.note_state("a", state("online", 5))
    assert devices.note_state("a", state("offline", 2**53)) == "offline"
    assert devices.note_state("a", state("online", 6)) == "online"
    assert devices.note_state("a", state("offline", 5)) is None
    assert devices.note_state("a", state("offline", 6)) == "offline"


def test_a_state_that_changes_nothing_is_no_news(devices: Devices) -> None:
    """Retained state comes again at every reconnect."""
    devices.note_state("a", state("online", 1))
    assert devices.note_state("a", state("online", 1)) is None


def test_a_device_whose_birth_was_dropped_is_there_by_what_it_sends(devices: Devices) -> None:
    """With a profile and a window, and until its own word; of one that says neither nothing is kept."""
    register(devices, "a")
    record = devices.get("a")
    assert record is not None
    assert not record.online
    record.windows = 1
    assert devices.participants() == ["a"]
    assert devices.note_state("a", state("offline", 1)) == "offline"
    assert devices.participants() == []
    stranger = devices.get("b")
    assert stranger is not None
    stranger.windows = 1
    assert not stranger.online


def test_a_configuration_is_told_once(devices: Devices) -> None:
    """And again when the load changes it."""
    assert isinstance(register(devices, "a"), DeviceConfig)
    assert devices.configure("a", NEEDS, Load()) is None
    assert isinstance(devices.configure("a", NEEDS, Load(busy=0.99)), DeviceConfig)


def test_a_refusal_is_told_once(devices: Devices) -> None:
    """A retained profile of a device that left would else be refused for ever."""
    wrong = DeviceProfile(dims={"text": 300})
    assert isinstance(register(devices, "a", wrong), Unservable)
    assert devices.configure("a", NEEDS, Load()) is None
    assert isinstance(register(devices, "a"), DeviceConfig)


def test_only_online_devices_that_train_take_part(devices: Devices) -> None:
    """In an order that does not depend on who came first."""
    for id in ("b", "a", "c", "d"):
        register(devices, id)
        devices.note_state(id, state("online" if id != "c" else "stopped", 1))
    register(devices, "d", DeviceProfile(dims={"text": 24}))
    assert devices.participants() == ["a", "b"]


def test_there_is_room_for_so_many(devices: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is told so, and known ones stay."""
    monkeypatch.setattr(module, "MAX_DEVICES", 2)
    register(devices, "a")
    register(devices, "b")
    assert [devices.get(id) is None for id in "abc"] == [False, False, True]


def test_names_without_a_profile_keep_nobody_out(devices: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an open broker a stranger may speak under any number of names; a device that says what it is finds room."""
    monkeypatch.setattr(module, "MAX_DEVICES", 2)
    register(devices, "a")
    for number in range(9):
        record = devices.get(f"stranger-{number}")
        assert record is not None
        record.windows += 1
    register(devices, "b")
    assert [record.id for record in devices] == ["a", "b"]
