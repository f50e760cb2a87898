"""Scenes: windows of one instant from several devices become one sample, in time, each exactly once."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.scenes import MAX_SCENES, Joined, Joiner
from megace2_iot.features import Modality

Sample = Joined[int, str]
DEVICES = ("cam", "mic", "phone")
PARTS: dict[str, tuple[Modality, ...]] = {"cam": ("vision",), "mic": ("audio",), "phone": ("text", "audio")}
BOTH = {"cam", "mic"}


def joiner(*, slot: float = 2.0, deadline: float = 1.0, **bounds: int) -> Joiner[int, str]:
    return Joiner(slot, deadline, **bounds)


def put(
    joiner: Joiner[int, str],
    device: str,
    key: int,
    captured_at: float,
    now: float = 0.0,
    members: Collection[str] = BOTH,
    scene: str = "lab",
) -> list[Sample]:
    """One window, whose parts say where they are from."""
    parts = dict.fromkeys(PARTS[device], f"{device}{key}")
    return joiner.put(scene, device, key, parts, captured_at, now, members)


def shown(joined: Sample) -> tuple[tuple[tuple[str, int], ...], bool, bool]:
    return joined.members, joined.complete, joined.late


def test_a_camera_and_a_microphone_make_one_sample() -> None:
    """It leaves with the last of them, and holds the parts of both."""
    scenes = joiner()
    assert put(scenes, "mic", 7, 100.0) == []
    assert scenes.next_deadline() == 1.0
    (joined,) = put(scenes, "cam", 3, 100.9, now=0.2)
    assert shown(joined) == ((("cam", 3), ("mic", 7)), True, False)
    assert joined.parts == {"audio": "mic7", "vision": "cam3"}
    assert scenes.next_deadline() is None


def test_a_device_alone_does_not_wait() -> None:
    """A scene of one is complete at once."""
    (joined,) = put(joiner(), "cam", 1, 100.0, members={"cam"})
    assert shown(joined) == ((("cam", 1),), True, False)


def test_windows_of_different_instants_do_not_mix() -> None:
    """Half a slot parts them; each joins the nearest of those in reach."""
    scenes = joiner()
    put(scenes, "mic", 1, 100.0)
    put(scenes, "mic", 2, 101.5)
    assert put(scenes, "cam", 9, 103.0) == []
    (joined,) = put(scenes, "cam", 1, 100.9)
    assert joined.members == (("cam", 1), ("mic", 2))
    assert len(scenes) == 2


def test_scenes_do_not_mix() -> None:
    """The same instant in another room is another sample."""
    scenes = joiner()
    put(scenes, "mic", 1, 100.0, scene="lab")
    assert put(scenes, "cam", 1, 100.0, scene="hall") == []
    assert len(scenes) == 2


def test_a_group_leaves_at_its_deadline() -> None:
    """Whoever is missing then is not waited for."""
    scenes = joiner()
    put(scenes, "mic", 1, 100.0, now=5.0)
    assert scenes.due(5.9) == []
    (joined,) = scenes.due(6.0)
    assert shown(joined) == ((("mic", 1),), False, False)
    assert scenes.counters["overdue"] == 1


def test_a_late_window_is_answered_alone() -> None:
    """Its group has left: it holds nobody up, and still gets its answer."""
    scenes = joiner()
    put(scenes, "mic", 1, 100.0)
    scenes.due(1.0)
    (joined,) = put(scenes, "cam", 1, 100.2, now=1.1)
    assert shown(joined) == ((("cam", 1),), False, True)
    assert put(scenes, "cam", 2, 102.0, now=1.2) == []
    assert scenes.counters["late"] == 1


def test_the_next_window_of_an_instant_is_not_late() -> None:
    """A device whose window left with its group opens the next one: only who was missing is late."""
    scenes = joiner()
    put(scenes, "mic", 1, 100.0)
    scenes.due(1.0)
    assert put(scenes, "mic", 2, 100.5, now=1.1) == []
    (joined,) = put(scenes, "cam", 1, 100.5, now=1.2)
    assert shown(joined) == ((("cam", 1), ("mic", 2)), True, False)


def test_a_second_window_of_a_device_opens_the_next_group() -> None:
    """Windows shorter than the slot: one of each device to a sample."""
    scenes = joiner()
    put(scenes, "mic", 1, 100.0)
    put(scenes, "mic", 2, 100.5)
    members = [joined.members for key in (1, 2) for joined in put(scenes, "cam", key, 100.0 + key / 4)]
    assert members == [(("cam", 1), ("mic", 1)), (("cam", 2), ("mic", 2))]


def test_a_device_that_leaves_holds_nobody_up() -> None:
    """Its will completes what only it was missing from; what it gave before stays."""
    scenes = joiner()
    put(scenes, "mic", 1, 100.0)
    put(scenes, "cam", 5, 104.0)
    assert [shown(joined) for joined in scenes.gone("cam")] == [((("mic", 1),), True, False)]
    (joined,) = put(scenes, "mic", 3, 104.0)
    assert joined.members == (("cam", 5), ("mic", 3))


def test_the_same_modality_twice_is_taken_once() -> None:
    """By the devices' names, so that it does not depend on who was first; the other is counted."""
    for order in (("phone", "mic"), ("mic", "phone")):
        scenes = joiner()
        put(scenes, order[0], 1, 100.0, members={"mic", "phone"})
        (joined,) = put(scenes, order[1], 1, 100.0, members={"mic", "phone"})
        assert joined.parts == {"text": "phone1", "audio": "mic1"}
        assert scenes.counters["doubled"] == 1


def test_too_many_groups_leave_early() -> None:
    """A bound on a scene and one on all of them; the oldest goes, unfinished."""
    scenes = joiner(max_groups_of_scene=2, max_groups=3)
    for key in (1, 2):
        assert put(scenes, "mic", key, 100.0 + 10 * key) == []
    assert [j.members for j in put(scenes, "mic", 3, 130.0)] == [(("mic", 1),)]
    put(scenes, "mic", 4, 100.0, scene="hall")
    assert [(j.scene, j.members) for j in put(scenes, "mic", 5, 100.0, scene="attic")] == [("lab", (("mic", 2),))]
    assert len(scenes) == 3
    assert scenes.counters["early"] == 2


def test_scenes_are_forgotten() -> None:
    """Names of scenes come from devices: they take a bounded memory, and open groups are never lost for it."""
    scenes = joiner()
    put(scenes, "mic", 0, 100.0)
    for number in range(MAX_SCENES + 50):
        put(scenes, "cam", number, 100.0, members={"cam"}, scene=f"s{number}")
    assert len(scenes._scenes) <= MAX_SCENES + 1
    assert [joined.members for joined in scenes.due(1.0)] == [(("mic", 0),)]


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.sampled_from(DEVICES),
            st.sampled_from(["lab", "hall"]),
            st.integers(0, 12),
            st.sets(st.sampled_from(DEVICES)),
        ),
        st.tuples(
            st.sampled_from(["due", "gone", "wait"]),
            st.sampled_from(DEVICES),
            st.just(""),
            st.integers(0, 6),
            st.none(),
        ),
    ),
    max_size=50,
)
Steps = Sequence[tuple[str, str, str, int, Collection[str] | None]]


def play(steps: Steps) -> tuple[Joiner[int, str], list[tuple[float, Sample]], dict[int, float]]:
    """Each step's groups with when they left, and when each window was put; keys are unique."""
    scenes, now, out, put_at = joiner(max_groups=6, max_groups_of_scene=4), 0.0, [], {}
    for key, (what, device, scene, quarters, members) in enumerate(steps):
        deadline = scenes.next_deadline()
        if what == "wait":
            now = now + quarters / 4 if deadline is None else min(now + quarters / 4, deadline)
        if deadline is not None and deadline <= now:
            out += [(now, joined) for joined in scenes.due(now)]
        if what == "put":
            put_at[key] = now
            out += [(now, j) for j in put(scenes, device, key, 100 + quarters / 4, now, members or (), scene)]
        elif what == "gone":
            out += [(now, joined) for joined in scenes.gone(device)]
    out += [(now, joined) for joined in scenes.due(now + 1.0)]
    return scenes, out, put_at


@given(STEPS)
def test_every_window_leaves_once_and_in_time(steps: Steps) -> None:
    """In one group, with at most one of each device, all of one instant; the bounds hold and the counters add up."""
    scenes, out, put_at = play(steps)
    assert sorted(key for _, joined in out for _, key in joined.members) == sorted(put_at)
    assert len(scenes) == 0
    for left_at, joined in out:
        devices = [device for device, _ in joined.members]
        assert devices == sorted(set(devices))
        assert all(left_at <= put_at[key] + 1.0 for _, key in joined.members)
        captured = [steps[key][3] / 4 for _, key in joined.members]
        first = captured[[key for _, key in joined.members].index(min(key for _, key in joined.members))]
        assert all(abs(at - first) <= 1.0 for at in captured)
        assert {steps[key][2] for _, key in joined.members} == {joined.scene}
        assert set(joined.parts) == {modality for device in devices for modality in PARTS[device]}
        assert not (joined.late and (joined.complete or len(devices) > 1))
    assert sum(scenes.counters[how] for how in ("complete", "overdue", "early", "late")) == len(out)


@given(STEPS)
def test_the_same_windows_make_the_same_samples(steps: Steps) -> None:
    """No order of a set or a hash decides anything."""
    one, two = (
        play([(*step[:4], None if step[4] is None else sorted(step[4])[::way]) for step in steps]) for way in (1, -1)
    )
    assert [(at, j.scene, shown(j), dict(j.parts)) for at, j in one[1]] == [
        (at, j.scene, shown(j), dict(j.parts)) for at, j in two[1]
    ]
    assert one[0].counters == two[0].counters
