"""Fair dequeue and rates: whoever floods waits for itself, and an honest device loses nothing."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.outbox import Bounds, Outbox
from device_agent.outbox.under_way import resend_delay
from device_agent.pacing import Pace
from edge_gateway.quota import LOOK_AGAIN, REMEMBERED, FairQueue, QuotaSettings

ANY = QuotaSettings(windows=0, bytes=0)


def untold(device: str) -> float:
    return 0.0


def queue(settings: QuotaSettings = ANY, most: int = 100, most_bytes: int = 1000, each: int = 8) -> FairQueue[str]:
    return FairQueue(settings, most, most_bytes, each)


def test_devices_take_turns() -> None:
    """One window of a quiet device waits for one of the flooding one, not for all of them."""
    waiting = queue()
    for number in range(5):
        waiting.put("flood", f"f{number}", 1)
    waiting.put("quiet", "q0", 1)
    assert [waiting.take(untold, 0.0) for _ in range(3)] == [("flood", "f0"), ("quiet", "q0"), ("flood", "f1")]


def test_a_flood_loses_its_own_newest() -> None:
    """The bound is of each device: what others send still finds room, and the loss is counted by name."""
    waiting = queue(each=2)
    assert [waiting.put("flood", str(number), 1) for number in range(4)] == ["waits", "waits", "flood", "flood"]
    assert waiting.put("quiet", "q", 1) == "waits"
    assert waiting.flooded == {"flood": 2}


def test_huge_packets_of_one_device_leave_room_for_others() -> None:
    """A quarter of the bytes is one device's share, but for a packet alone."""
    waiting = queue(most_bytes=1000)
    assert [waiting.put("flood", "big", 240), waiting.put("flood", "big", 240)] == ["waits", "flood"]
    assert waiting.put("large", "alone", 700) == "waits"
    assert waiting.put("other", "x", 100) == "full"


def test_a_packet_larger_than_all_goes_through_alone() -> None:
    """What a broker let through must not wait for room that never comes."""
    waiting = queue(most_bytes=10)
    assert waiting.put("a", "huge", 50) == "waits"
    assert waiting.take(untold, 0.0) == ("a", "huge")


def test_what_is_beyond_the_rate_waits_for_its_tokens() -> None:
    """Paced, not lost: an honest device that is quick gets each answer, a little later."""
    waiting = queue(QuotaSettings(windows=2.0, bytes=0, burst=1.0))
    for number in range(4):
        waiting.put("a", str(number), 1)
    assert [waiting.take(untold, 0.0) for _ in range(3)] == [("a", "0"), ("a", "1"), None]
    assert waiting.wait(0.0) == pytest.approx(0.5)
    assert waiting.take(untold, 0.5) == ("a", "2")
    assert waiting.take(untold, 0.6) is None


def test_one_that_waits_for_tokens_holds_nobody_up() -> None:
    """Its turn passes over."""
    waiting = queue(QuotaSettings(windows=1.0, bytes=0, burst=1.0))
    for number in range(3):
        waiting.put("flood", str(number), 1)
        waiting.put(f"quiet-{number}", "q", 1)
    taken = [found[0] for _ in range(6) if (found := waiting.take(untold, 0.0))]
    assert sorted(taken) == ["flood", "quiet-0", "quiet-1", "quiet-2"]


def test_a_device_that_was_told_a_rate_may_send_twice_that() -> None:
    """A busy edge's own word is the limit, with room for what a network bunches."""
    waiting = queue(QuotaSettings(windows=1000.0, bytes=0, burst=1.0), each=100)
    for number in range(50):
        waiting.put("a", str(number), 1)
    taken = 0
    while waiting.take(lambda device: 5.0, 0.0):
        taken += 1
    assert taken == 10


def test_windows_of_one_packet_are_all_paid_for() -> None:
    """Sixteen windows in one packet are no way round the rate."""
    waiting = queue(QuotaSettings(windows=1.0, bytes=0, burst=2.0))
    waiting.put("a", "of sixteen", 1)
    waiting.put("a", "next", 1)
    waiting.take(untold, 0.0)
    waiting.charge("a", 15)
    assert waiting.take(untold, 14.0) is None
    assert waiting.take(untold, 15.1) == ("a", "next")


def test_bytes_are_paid_for_too() -> None:
    """Few and huge is a flood as well; a packet beyond the burst is overdrawn, not stuck."""
    waiting = queue(QuotaSettings(windows=0, bytes=100.0, burst=1.0), most_bytes=10_000)
    waiting.put("a", "big", 500)
    waiting.put("a", "next", 1)
    assert waiting.take(untold, 0.0) == ("a", "big")
    assert waiting.take(untold, 3.0) is None
    assert waiting.take(untold, 4.1) == ("a", "next")


def test_several_windows_of_one_packet_are_several_turns() -> None:
    """Whoever packs sixteen windows into each packet has as many answers as the others, not sixteen times as many."""
    waiting, windows = queue(), Counter[str]()
    for number in range(8):
        waiting.put("packs", f"p{number}", 1)
    for number in range(64):
        waiting.put(f"plain-{number % 8}", f"q{number}", 1)
    while len(waiting) > 24:
        found = waiting.take(untold, 0.0)
        assert found
        more = 15 if found[0] == "packs" else 0
        waiting.charge(found[0], more)
        windows[found[0]] += 1 + more
    assert windows["packs"] - windows["plain-0"] <= 16


def test_whoever_was_alone_owes_nothing_to_those_who_come() -> None:
    """A backlog that met nobody is no reason to wait for others afterwards."""
    waiting = queue()
    for number in range(5):
        waiting.put("packs", f"p{number}", 1)
    for _ in range(3):
        waiting.take(untold, 0.0)
        waiting.charge("packs", 15)
    for number in range(20):
        waiting.put(f"other-{number}", "x", 1)
    taken = [found[0] for _ in range(22) if (found := waiting.take(untold, 0.0))]
    assert "packs" in taken


def test_what_rests_costs_nothing() -> None:
    """A device without tokens is not looked at with each packet of the others."""
    waiting, looks = queue(QuotaSettings(windows=1.0, bytes=0, burst=1.0), most=1000), Counter[str]()

    def told(device: str) -> float:
        looks[device] += 1
        return 0.0

    for number in range(100):
        waiting.put(f"flood-{number}", "a", 1)
        waiting.put(f"flood-{number}", "b", 1)
    while waiting.take(told, 0.0):
        pass
    assert max(looks.values()) == 2
    for number in range(100):
        waiting.put(f"quiet-{number}", "x", 1)
        assert waiting.take(told, 0.0) == (f"quiet-{number}", "x")
    assert max(looks.values()) == 2


def test_a_rate_that_rises_is_noticed() -> None:
    """Nobody rests for hours by a rate that the edge took back."""
    waiting = queue(QuotaSettings(windows=100.0, bytes=0, burst=1.0))
    for number in range(3):
        waiting.put("a", str(number), 1)
    while waiting.take(lambda device: 0.001, 0.0):
        pass
    assert waiting.wait(0.0) == LOOK_AGAIN
    assert waiting.take(untold, LOOK_AGAIN)


@given(st.floats(0.2, 1e5), st.floats(0.01, 600), st.floats(0, 1e7), st.integers(1, 30))
def test_after_the_wait_something_is_found(rate: float, burst: float, now: float, windows: int) -> None:
    """No rounding makes a loop of it that never sleeps, nor one that sleeps for ever."""
    waiting = queue(QuotaSettings(windows=rate, bytes=0, burst=burst))
    waiting.put("a", "first", 1)
    assert waiting.take(untold, now)
    waiting.charge("a", windows)
    waiting.put("a", "next", 1)
    began = now
    for turn in itertools.count():
        if waiting.take(untold, now):
            break
        assert 0 < waiting.wait(now) <= 1.001 * LOOK_AGAIN
        now += waiting.wait(now)
        assert turn <= (now - began) / LOOK_AGAIN + 3
    assert now - began <= (windows + 2) / rate + 2 * LOOK_AGAIN


# -- where all is full ----------------------------------------------------------------
def test_whoever_has_more_than_is_honest_gives_way() -> None:
    """Floods that fill the queue together shut nobody out: the fullest loses its newest."""
    waiting = queue(most=16, each=8)
    for number in range(8):
        waiting.put("flood-1", str(number), 1)
        waiting.put("flood-2", str(number), 1)
    assert [waiting.put(f"quiet-{number}", "x", 1) for number in range(9)] == ["waits"] * 8 + ["full"]
    assert (waiting.floods, dict(waiting.flooded)) == (8, {"flood-1": 4, "flood-2": 4})
    taken = [found for _ in range(16) if (found := waiting.take(untold, 0.0))]
    assert [item for device, item in taken if device == "flood-1"] == ["0", "1", "2", "3"]


def test_a_flood_holds_nobody_up_where_all_is_full() -> None:
    """What it sends then is lost at once: it does not stand before the others until there is room."""
    waiting = queue(most=12, each=8)
    for number in range(6):
        waiting.put("flood", str(number), 1)
        waiting.put(f"quiet-{number}", "x", 1)
    assert waiting.put("flood", "more", 1) == "flood"
    assert waiting.put("quiet-9", "x", 1) == "waits"


def test_honest_devices_wait_for_room_and_lose_nothing() -> None:
    """As many as an honest device may have under way is no flood, however many devices there are: the broker waits."""
    waiting = queue(most=16, each=8)
    for device in "abcd":
        assert [waiting.put(device, str(number), 1) for number in range(4)] == ["waits"] * 4
    assert [waiting.put(device, "more", 1) for device in "ae"] == ["full", "full"]
    assert (len(waiting), waiting.floods) == (16, 0)


def test_huge_packets_give_way_too() -> None:
    """By bytes as by number; what is alone of its device stays."""
    waiting = queue(most_bytes=1000, each=8)
    for device in "abcd":
        waiting.put(device, "first", 120)
        waiting.put(device, "second", 120)
    assert waiting.put("quiet", "x", 150) == "waits"
    assert dict(waiting.flooded) == {"a": 1}
    alone = queue(most_bytes=1000)
    alone.put("large", "alone", 900)
    assert alone._greedy
    assert alone.put("quiet", "x", 150) == "full"


# -- bounds ---------------------------------------------------------------------------
def test_names_of_strangers_take_no_memory() -> None:
    """Whoever changes its name with each packet is forgotten as fast."""
    waiting = queue(most=10)
    for number in range(2 * REMEMBERED):
        for _ in range(9):
            waiting.put(f"n{number}", "x", 1)
        for _ in range(8):
            waiting.take(untold, float(number))
    assert (len(waiting), len(waiting._devices), len(waiting._turns), len(waiting._resting)) == (0, 0, 0, 0)
    assert (len(waiting._tokens), len(waiting.flooded)) == (REMEMBERED, REMEMBERED)


Steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 300)) | st.none(), max_size=80)


@given(Steps, st.just(0.0) | st.floats(0.1, 20), st.integers(2, 6))
def test_every_item_comes_out_once_in_its_device_s_order(steps: list[Any], rate: float, each: int) -> None:
    """Nothing is lost but what is counted, and no bound is passed."""
    waiting, inside, out = queue(QuotaSettings(windows=rate, bytes=0), most=9, each=each), [], []
    flooded = 0
    for now, step in enumerate(steps):
        if step is None:
            if found := waiting.take(untold, float(now)):
                out.append(found)
        elif (became := waiting.put(step[0], f"{now}", step[1])) == "waits":
            inside.append((step[0], f"{now}"))
        else:
            flooded += became == "flood"
        assert len(waiting) == len(inside) - len(out) - (waiting.floods - flooded) <= 9
        assert waiting._bytes <= 1000
    now = 1e6
    while len(waiting):
        now += 100
        if found := waiting.take(untold, now):
            out.append(found)
    for device in "abc":
        left = iter([one for one in inside if one[0] == device])
        assert all(one in left for one in out if one[0] == device)  # in the order in which they came
    assert len(inside) - len(out) + flooded == waiting.floods == sum(waiting.flooded.values())
    assert (waiting._bytes, len(waiting._resting), waiting._devices, waiting._greedy) == (0, 0, {}, {})


# -- with a device's outbox -----------------------------------------------------------
class Drain:
    """A device's own outbox, its pace and its edge's queue, on a clock of their own; the edge answers at once."""

    def __init__(self, path: Path, waiting: FairQueue[list[int]], told: float, windows: int) -> None:
        self.outbox, self.pace = Outbox(path, Bounds(10_000, 1 << 30, 1e9)), Pace(0.0)
        self.waiting, self.told, self.now = waiting, told, 1.0
        for _ in range(windows):
            self.outbox.accept(b"window", 0.0, 0.0)

    def send(self, most: int, *, paced: bool) -> None:
        """All that may go now, in packets of eight."""
        while not paced or self.pace.wait(self.now) == 0:
            replay = self.pace.replay(8, self.told, self.now) if paced else 8
            due = self.outbox.due(self.now, 8, max_unanswered=most, replay=replay)
            if not due:
                return
            seqs = [one.seq for one in due]
            self.outbox.mark_sent(seqs, self.now, resend_delay(due[0].attempts, 1.0))
            if paced:
                self.pace.sent(len(due), len(due), self.told, self.now)
            self.waiting.put("cam", seqs, 100)

    def answer(self) -> None:
        while found := self.waiting.take(lambda device: self.told, self.now):
            self.waiting.charge("cam", len(found[1]) - 1)
            for seq in found[1]:
                self.outbox.free(seq)

    def run(self, most: int, *, paced: bool = True) -> float:
        """Until all is answered; s that it took."""
        while len(self.outbox):
            self.send(most, paced=paced)
            self.answer()
            self.now += 0.05
            assert self.now < 10_000, f"{len(self.outbox)} are left"
        self.outbox.close()
        return self.now


@pytest.mark.parametrize("told", [0.5, 5.0, 50.0])
def test_a_backlog_at_the_told_rate_is_no_flood(tmp_path: Path, told: float) -> None:
    """After an outage a device sends as its edge told it: it is held up nowhere, and loses nothing."""
    waiting = queue(QuotaSettings(), most=512, most_bytes=1 << 26, each=64)
    took = Drain(tmp_path / "outbox", waiting, told, 200).run(32)
    assert waiting.floods == 0
    assert took <= 1.25 * 200 / (0.5 * told)  # its own half for what is old


def test_a_device_that_does_not_keep_to_its_rate_is_answered_in_the_end(tmp_path: Path) -> None:
    """What it loses it sends again, later each time: that is no circle in which nothing is answered."""
    waiting = queue(QuotaSettings(), most=512, most_bytes=1 << 26, each=8)
    took = Drain(tmp_path / "outbox", waiting, 5.0, 400).run(400, paced=False)
    assert waiting.floods > 0
    assert took < 20 * 400 / (2 * 5.0)
