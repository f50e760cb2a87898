"""Windows of one scene, from a camera here and a microphone there, joined into one sample; pure, `now` in monotonic s.

The first window of an instant opens a group and says where it lies; those of other devices that were captured within
half a `slot` of it join. A group leaves when every member of the scene has given its window, at the latest `deadline` s
after it was opened, and what comes for it afterwards is answered alone. A device that goes offline holds nobody up.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from megace2_iot.features import MODALITIES, Modality

K = TypeVar("K")  # what an answer needs to find its window: epoch and seq
T = TypeVar("T")  # one modality of a window, in whatever form

REMEMBERED = 32  # groups of a scene that left, by which late windows are known
MAX_SCENES = 1024  # remembered at once; of more, the one that was quiet for longest is forgotten


@dataclass(frozen=True, slots=True, eq=False)
class Joined(Generic[K, T]):
    """One sample: windows of `members` (device and key, by device), at most one of each."""

    scene: str
    members: tuple[tuple[str, K], ...]
    parts: Mapping[Modality, T]
    complete: bool  # every device that was awaited is in it
    late: bool  # its group had left


@dataclass(slots=True, eq=False)
class _Group(Generic[K, T]):
    captured_at: float  # unix s, of its first window
    deadline: float
    windows: dict[str, tuple[K, Mapping[Modality, T]]]  # by device


@dataclass(slots=True, eq=False)
class _Scene(Generic[K, T]):
    members: set[str] = field(default_factory=set)
    groups: list[_Group[K, T]] = field(default_factory=list)  # in the order in which they were opened
    left: deque[tuple[float, frozenset[str]]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class Joiner(Generic[K, T]):
    """All scenes of one edge. `slot` is the s between two windows of a device.

    At most `max_groups` are open, `max_groups_of_scene` of one scene: of more, the oldest leaves early. `counters`
    tells what left how, and modalities that two devices of a group sent (the first by name is taken).
    """

    def __init__(self, slot: float, deadline: float, *, max_groups: int = 1024, max_groups_of_scene: int = 16) -> None:
        self._slot, self._deadline = slot, deadline
        self._max_groups, self._max_groups_of_scene = max_groups, max_groups_of_scene
        self._scenes: OrderedDict[str, _Scene[K, T]] = OrderedDict()  # the one heard of last at the end
        self._open: dict[_Group[K, T], str] = {}  # with their scenes, by the order in which they were opened
        self.counters = Counter(complete=0, overdue=0, early=0, late=0, doubled=0)

    def __len__(self) -> int:
        """Groups that are open."""
        return len(self._open)

    def put(
        self,
        scene: str,
        device: str,
        key: K,
        parts: Mapping[Modality, T],
        captured_at: float,
        now: float,
        members: Collection[str],
    ) -> list[Joined[K, T]]:
        """Take one window, captured at unix s; `members` are the devices of its scene that are online. Returns the
        groups that leave: completed by it, overdue, or the oldest where there is no more room.
        """
        state = self._scene(scene)
        state.members = {*members, device}
        leaving: list[Joined[K, T]] = []
        group = self._group_for(state, device, captured_at)
        if group is not None:
            group.windows[device] = (key, parts)
        elif self._is_late(state, device, captured_at):
            self.counters["late"] += 1
            leaving.append(_join(scene, {device: (key, parts)}, complete=False, late=True))
        else:
            leaving += self._make_room(scene)
            group = _Group(captured_at, now + self._deadline, {device: (key, parts)})
            state.groups.append(group)
            self._open[group] = scene
        return leaving + self._completed(scene) + self.due(now)

    def gone(self, device: str) -> list[Joined[K, T]]:
        """A device went offline: it is waited for no longer. Returns the groups that this completes."""
        completed = []
        for scene, state in self._scenes.items():
            if device in state.members:
                state.members.remove(device)
                completed += self._completed(scene)
        return completed

    def due(self, now: float) -> list[Joined[K, T]]:
        """The groups whose deadline has passed."""
        overdue = [(group, scene) for group, scene in self._open.items() if group.deadline <= now]
        return [self._leave(scene, group, "overdue") for group, scene in overdue]

    def next_deadline(self) -> float | None:
        """When `due` has a group (monotonic s); None where none is open."""
        return min((group.deadline for group in self._open), default=None)

    def _scene(self, scene: str) -> _Scene[K, T]:
        state = self._scenes.setdefault(scene, _Scene())
        self._scenes.move_to_end(scene)
        if len(self._scenes) > MAX_SCENES:
            quiet = next((name for name, its in self._scenes.items() if not its.groups and name != scene), None)
            if quiet is not None:  # else every one holds a group, and those are bounded
                del self._scenes[quiet]
        return state

    def _group_for(self, state: _Scene[K, T], device: str, captured_at: float) -> _Group[K, T] | None:
        """The open group that lies nearest, of those that lack this device."""
        near = [g for g in state.groups if self._belongs(g.captured_at, captured_at) and device not in g.windows]
        return min(near, key=lambda group: abs(group.captured_at - captured_at), default=None)

    def _is_late(self, state: _Scene[K, T], device: str, captured_at: float) -> bool:
        return any(self._belongs(at, captured_at) and device not in devices for at, devices in state.left)

    def _belongs(self, first: float, captured_at: float) -> bool:
        return abs(captured_at - first) <= self._slot / 2

    def _make_room(self, scene: str) -> list[Joined[K, T]]:
        leaving = []
        if len(self._scenes[scene].groups) >= self._max_groups_of_scene:
            leaving.append(self._leave(scene, self._scenes[scene].groups[0], "early"))
        if len(self._open) >= self._max_groups:
            oldest = next(iter(self._open))
            leaving.append(self._leave(self._open[oldest], oldest, "early"))
        return leaving

    def _completed(self, scene: str) -> list[Joined[K, T]]:
        state = self._scenes[scene]
        return [self._leave(scene, g, "complete") for g in list(state.groups) if state.members <= g.windows.keys()]

    def _leave(self, scene: str, group: _Group[K, T], how: str) -> Joined[K, T]:
        state = self._scenes[scene]
        state.groups.remove(group)
        del self._open[group]
        state.left.append((group.captured_at, frozenset(group.windows)))
        self.counters[how] += 1
        joined = _join(scene, group.windows, complete=how == "complete", late=False)
        self.counters["doubled"] += sum(len(parts) for _, parts in group.windows.values()) - len(joined.parts)
        return joined


def _join(
    scene: str, windows: Mapping[str, tuple[K, Mapping[Modality, T]]], *, complete: bool, late: bool
) -> Joined[K, T]:
    """Of each modality the first device's, by name."""
    devices = sorted(windows)
    found: dict[Modality, T] = {}
    for device in devices:
        for modality, part in windows[device][1].items():
            found.setdefault(modality, part)
    parts = {modality: found[modality] for modality in MODALITIES if modality in found}
    return Joined(scene, tuple((device, windows[device][0]) for device in devices), parts, complete, late)
