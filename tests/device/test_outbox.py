"""The outbox: what was accepted is there until it is answered or shed, through crashes, full disks and damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.outbox import Bounds, Due, Outbox, OutboxError
from device_agent.outbox.bounds import default_size
from device_agent.outbox.order import Pressure
from device_agent.outbox.under_way import resend_delay
from device_agent.settings import DeviceSettings
from megace2_iot.problems import Problem
from megace2_iot.service import Settings

BOUNDS = Bounds(windows=100, size=1 << 20, age=1000.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "device.outbox"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    outbox = Outbox(path, BOUNDS)
    yield outbox
    outbox.close()


def reopen(outbox: Outbox, path: Path, **bounds: Any) -> Outbox:
    outbox.close()
    return Outbox(path, replace(BOUNDS, **bounds))


def send(outbox: Outbox, now: float, limit: int = 10, max_unanswered: int = 32, delay: float = 5.0) -> list[int]:
    """Send what is due; returns its seqs."""
    seqs = [due.seq for due in outbox.due(now, limit, max_unanswered=max_unanswered)]
    outbox.mark_sent(seqs, now, delay)
    return seqs


# -- a window's life ------------------------------------------------------------------
def test_oldest_first_until_answered(outbox: Outbox) -> None:
    """Windows go out in the order in which they were accepted, and an answer frees one once."""
    seqs = [outbox.accept(b"%d" % number, 1.0, 1.0) for number in range(3)]
    assert outbox.due(2.0, 2, max_unanswered=32) == [Due(1, b"0", 1.0, 0), Due(2, b"1", 1.0, 0)]
    assert (seqs, len(outbox)) == ([1, 2, 3], 3)
    assert outbox.free(2)
    assert not outbox.free(2)
    assert not outbox.free(99)
    assert [due.seq for due in outbox.due(2.0, 9, max_unanswered=32)] == [1, 3]


def test_silence_sends_again(outbox: Outbox) -> None:
    """A window that is under way is due again after its delay, with its attempts counted."""
    outbox.accept(b"a", 0.0, 0.0)
    assert send(outbox, 0.0, delay=5.0) == [1]
    assert send(outbox, 4.9) == []
    assert outbox.next_due(4.0) == pytest.approx(1.0)
    assert outbox.due(5.0, 9, max_unanswered=32) == [Due(1, b"a", 0.0, 1)]


def test_a_clock_that_goes_back_sends_again(outbox: Outbox) -> None:
    """A device that gets the time from the network does not sit on its windows for the hours it went back."""
    outbox.accept(b"a", 50_000.0, 50_000.0)
    send(outbox, 50_000.0)
    assert outbox.next_due(100.0) == 0.001
    assert send(outbox, 100.0) == [1]
    assert send(outbox, 104.0) == []


def test_a_bounded_number_is_under_way(outbox: Outbox) -> None:
    """More than `max_unanswered` are never out; sending again takes no further room."""
    for _ in range(5):
        outbox.accept(b"a", 0.0, 0.0)
    assert send(outbox, 0.0, max_unanswered=2) == [1, 2]
    assert send(outbox, 1.0, max_unanswered=2) == []
    assert outbox.next_due(1.0) == pytest.approx(4.0)
    assert send(outbox, 6.0, max_unanswered=2) == [1, 2]
    outbox.free(1)
    assert send(outbox, 6.0, max_unanswered=2) == [3]


def test_a_reconnect_makes_everything_due(outbox: Outbox) -> None:
    """What was under way may be lost with the link: it is sent again at once, and only it beyond the bound."""
    for _ in range(3):
        outbox.accept(b"a", 0.0, 0.0)
    send(outbox, 0.0, max_unanswered=2)
    outbox.reset_sent()
    assert outbox.next_due(0.0) == pytest.approx(0.001)
    assert send(outbox, 0.0, max_unanswered=2) == [1, 2]


def test_what_was_offered_but_not_sent_stays_due(outbox: Outbox) -> None:
    """The sender may take some of what is due; a hole in between is not forgotten."""
    for _ in range(4):
        outbox.accept(b"a", 0.0, 0.0)
    outbox.mark_sent([1, 3], 0.0, 5.0)
    assert send(outbox, 0.0, limit=1) == [2]
    assert send(outbox, 0.0) == [4]
    assert outbox.next_due(0.0) == pytest.approx(5.0)


def test_next_due_is_never_zero(outbox: Outbox) -> None:
    """None when nothing waits, a moment when something is due: 0 would read as nothing."""
    assert outbox.next_due(0.0) is None
    outbox.accept(b"a", 0.0, 0.0)
    assert outbox.next_due(0.0) == 0.001
    send(outbox, 0.0, delay=5.0)
    assert outbox.next_due(50.0) == 0.001
    outbox.mark_sent([77], 0.0, 5.0)
    outbox.free(1)
    assert outbox.next_due(0.0) is None


@pytest.mark.parametrize(
    ("attempts", "p99", "delay"),
    [(0, 0.1, 5.0), (1, 0.1, 10.0), (2, 0.1, 20.0), (4, 0.1, 60.0), (10_000, 0.1, 60.0), (0, 3.0, 12.0), (0, 99, 60)],
)
def test_resend_delay(attempts: int, p99: float, delay: float) -> None:
    """max(5 s, 4 p99), doubling to a minute."""
    assert resend_delay(attempts, p99) == delay


# -- its bounds -----------------------------------------------------------------------
def test_full_drops_the_oldest(path: Path, outbox: Outbox) -> None:
    """Fresh data win: the oldest go, under way or not, and are counted."""
    outbox = reopen(outbox, path, windows=2)
    for _ in range(2):
        outbox.accept(b"a", 0.0, 0.0)
    send(outbox, 0.0, limit=1)
    assert [outbox.accept(b"a", 0.0, 0.0), outbox.accept(b"a", 0.0, 0.0)] == [3, 4]
    assert send(outbox, 0.0) == [3, 4]
    assert (len(outbox), outbox.shed["full"], outbox.free(1)) == (2, 2, False)
    outbox.close()


def test_bytes_are_bounded(path: Path, outbox: Outbox) -> None:
    """As many of the oldest go as the new window needs room; one that cannot fit at all goes itself."""
    outbox = reopen(outbox, path, size=100)
    for _ in range(4):
        outbox.accept(bytes(25), 0.0, 0.0)
    outbox.accept(bytes(30), 0.0, 0.0)
    assert send(outbox, 0.0) == [3, 4, 5]
    assert outbox.accept(bytes(101), 0.0, 0.0) is None
    assert (len(outbox), outbox.shed["full"]) == (3, 3)
    outbox.close()


def test_full_may_drop_the_newest(path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    """With `drop_newest` what is here stays; who reads the log is told once what to do."""
    outbox = reopen(outbox, path, windows=1, when_full="drop_newest")
    outbox.accept(b"a", 0.0, 0.0)
    assert [outbox.accept(b"b", 0.0, 0.0) for _ in range(2)] == [None, None]
    assert caplog.text.count("raise outbox_packets or outbox_bytes") == 1
    assert (send(outbox, 0.0), outbox.shed["full"], sum(outbox.shed.values())) == ([1], 2, 2)
    outbox.free(1)
    assert outbox.accept(b"c", 0.0, 0.0) == 4
    outbox.close()


def test_old_windows_expire(outbox: Outbox) -> None:
    """Beyond `max_age` a window goes, when the next is accepted or when something is to be sent."""
    outbox.accept(b"a", 0.0, 0.0)
    outbox.accept(b"b", 500.0, 500.0)
    send(outbox, 1000.0, limit=1)
    outbox.accept(b"c", 1001.0, 1001.0)
    assert (len(outbox), outbox.shed["expired"]) == (2, 1)
    assert send(outbox, 1501.0) == [3]
    assert (len(outbox), outbox.shed["expired"]) == (1, 2)


def test_a_clock_that_jumps_forward_sheds_nothing_of_this_run(path: Path, outbox: Outbox) -> None:
    """A device that gets the time as it comes back does not throw away what it was to send; then ages go on as ever."""
    outbox.accept(b"of the run before", 0.0, 0.0)
    outbox.close()
    outbox = Outbox(path, BOUNDS, monotonic=lambda: ticks)
    ticks = 0.0
    outbox.accept(b"before the jump", 500.0, 500.0)
    ticks = 100.0
    outbox.accept(b"after it", 10_600.0, 10_600.0)  # 10,000 s too many
    assert [due.seq for due in outbox.due(10_600.0, 9, max_unanswered=9)] == [3]
    assert (outbox.shed["expired"], len(outbox)) == (1, 2)
    ticks = 1000.0
    assert [due.seq for due in outbox.due(11_501.0, 9, max_unanswered=9)] == [3]
    outbox.close()


def test_nobody_says_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a GiB, on a small disk a tenth of what is free and of what the outbox has already."""
    disk = SimpleNamespace(free=100 << 30)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: disk)
    assert default_size(tmp_path / "not" / "made" / "outbox") == 512 << 20
    disk.free = 90 << 20
    (tmp_path / "outbox").write_bytes(bytes(10 << 20))
    assert default_size(tmp_path / "outbox") == 10 << 20


def test_a_policy_that_does_not_exist_is_named() -> None:
    """With those that do."""
    with pytest.raises(Problem, match=r"\[device\] when_full = 'drop': .*'drop_newest', 'thin' or 'block'"):
        Settings(None, {"device": {"when_full": "drop"}}).section("device", DeviceSettings)


# -- restarts -------------------------------------------------------------------------
def test_a_restart_keeps_windows_and_numbering(path: Path, outbox: Outbox) -> None:
    """The same epoch goes on, no seq is used twice, and whatever is unanswered is due."""
    epoch = outbox.epoch
    for _ in range(3):
        outbox.accept(b"a", 0.0, 0.0)
    send(outbox, 0.0)
    outbox.free(3)
    outbox = reopen(outbox, path)
    assert (outbox.epoch, len(outbox), send(outbox, 0.0)) == (epoch, 2, [1, 2])
    assert outbox.accept(b"a", 0.0, 0.0) == 4
    outbox.close()


def test_a_lost_database_gets_a_larger_epoch(path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seqs begin anew, so the epoch must rise, also on a device whose clock went back."""
    epoch = outbox.epoch
    outbox.close()
    path.unlink()
    monkeypatch.setattr("time.time", lambda: 5.0)
    outbox = Outbox(path, BOUNDS)
    assert (outbox.epoch, outbox.accept(b"a", 0.0, 0.0)) == (epoch + 1, 1)
    outbox.close()


def test_a_database_put_back_gets_a_larger_epoch(path: Path, outbox: Outbox) -> None:
    """A copy from before may give out seqs that were used since: it goes on under a new epoch with what it holds."""
    outbox.accept(b"a", 0.0, 0.0)
    outbox.close()
    copy = path.read_bytes()
    path.unlink()
    newer = Outbox(path, BOUNDS)
    newer.close()
    path.write_bytes(copy)
    outbox = Outbox(path, BOUNDS)
    assert outbox.epoch > newer.epoch
    assert len(outbox) == 1
    outbox.close()


def test_a_lost_epoch_file_is_written_again(path: Path, outbox: Outbox) -> None:
    """The database knows its own epoch."""
    beside = path.with_name("device.outbox.epoch")
    beside.write_text("not a number")
    again = reopen(outbox, path)
    assert int(beside.read_text().split()[0]) == again.epoch == outbox.epoch
    again.close()


# -- what breaks ----------------------------------------------------------------------
def test_a_damaged_database_is_moved_aside(path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    """The device goes on with a new outbox and epoch, and nothing is thrown away."""
    epoch = outbox.epoch
    for number in (1, 2):
        outbox.close()
        path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 64)
        outbox = Outbox(path, BOUNDS)
        assert path.with_name(f"device.outbox.damaged-{number}").exists()
    assert "damaged: moved to" in caplog.text
    assert outbox.epoch > epoch
    assert outbox.accept(b"a", 0.0, 0.0) == 1
    outbox.close()


def test_a_changed_record_is_not_sent(path: Path, outbox: Outbox) -> None:
    """A bit that the disk flipped costs one window, not the sender."""
    outbox.accept(b"good", 0.0, 0.0)
    outbox.accept(b"bad", 0.0, 0.0)
    outbox.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE outbox SET record = x'00' WHERE seq = 1")
    db.close()
    outbox = Outbox(path, BOUNDS)
    assert (send(outbox, 0.0), len(outbox), outbox.shed["damaged"]) == ([2], 1, 1)
    outbox.close()


def test_a_second_process_is_told(path: Path, outbox: Outbox) -> None:
    """Two devices on one outbox would each send all of it."""
    with pytest.raises(OutboxError, match="another process has it open"):
        Outbox(path, BOUNDS)
    assert outbox.accept(b"a", 0.0, 0.0) == 1


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The message names the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxError, match=r"file/device\.outbox"):
        Outbox(tmp_path / "file" / "device.outbox", BOUNDS)


def test_close_twice_and_use_after(outbox: Outbox) -> None:
    """Closing is idempotent; a closed outbox says so as an `OutboxError`."""
    outbox.close()
    outbox.close()
    with pytest.raises(OutboxError, match="closed"):
        outbox.accept(b"a", 0.0, 0.0)


def child(program: str, path: Path) -> subprocess.Popen[str]:
    """A process that works on an outbox and prints."""
    text = "import sys, resource\nfrom pathlib import Path\nfrom device_agent.outbox import *\n" + textwrap.dedent(
        program
    )
    return subprocess.Popen([sys.executable, "-c", text, str(path)], stdout=subprocess.PIPE, text=True)


OPEN = "outbox = Outbox(Path(sys.argv[1]), Bounds(100_000, 1 << 30, 1000.0))\n"


def test_a_full_disk_is_told_and_survived(path: Path) -> None:
    """What cannot be committed is refused with what to do; answers still free windows, and so room."""
    program = OPEN + (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    while True: last = outbox.accept(bytes(50_000), 0.0, 0.0)\n"
        "except OutboxError as error: print(error)\n"
        "print(len(outbox) == last, outbox.due(0.0, 1, max_unanswered=1)[0].seq)\n"
        "print(outbox.free(1), len(outbox) + 1 == last)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "print(outbox.accept(b'', 0.0, 0.0) > last, outbox.free(2), outbox.close())\n"
    )
    with child(program, path) as process:
        out = process.communicate()[0].splitlines()
    assert process.returncode == 0
    assert "free space on it" in out[0] or "the disk fails" in out[0]
    assert out[1:] == ["True 1", "True True", "True True None"]


def test_the_last_of_the_disk_is_left_free(path: Path, outbox: Outbox) -> None:
    """Below the reserve the file does not grow, so that answers can still be written down and make room in it."""
    for _ in range(3):
        outbox.accept(bytes(50_000), 0.0, 0.0)
    outbox.close()
    outbox = Outbox(path, BOUNDS, reserve=1 << 60)
    with pytest.raises(OutboxError, match="free on its disk"):
        outbox.accept(bytes(50_000), 0.0, 0.0)
    outbox.free(1)
    assert outbox.accept(bytes(30_000), 0.0, 0.0) == 4
    outbox.close()


@pytest.mark.parametrize("accepted", [1, 40, 300])
def test_sigkill_loses_nothing_that_was_accepted(path: Path, accepted: int) -> None:
    """Every seq whose `accept` returned is there, whole, and no seq is given out again."""
    with child(
        OPEN + "while True: print(outbox.accept(b'%d' % len(outbox) * 20_000, 0.0, 0.0), flush=True)", path
    ) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(accepted)]
        os.kill(process.pid, signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().splitlines()]
    outbox = Outbox(path, BOUNDS)
    held = outbox.due(0.0, 10**6, max_unanswered=10**6)
    assert told == list(range(1, len(told) + 1))
    assert {due.seq for due in held} >= set(told)
    assert all(due.record == b"%d" % (due.seq - 1) * 20_000 for due in held)
    assert outbox.accept(b"", 0.0, 0.0) > max(told) + 1
    outbox.close()


def test_a_damaged_tail_after_sigkill_is_noticed(path: Path) -> None:
    """After an unclean end the file is checked, also where no query would stumble over the damage."""
    with child(OPEN + "while True: print(outbox.accept(bytes(90_000), 0.0, 0.0), flush=True)", path) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 120:
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.stdout.read()
    with path.open("r+b") as file:
        file.seek(200_000)
        file.write(b"\xff" * 50_000)
    Outbox(path, BOUNDS).close()
    assert path.with_name("device.outbox.damaged-1").exists()


# -- against a plain model ------------------------------------------------------------
Steps = st.lists(
    st.tuples(st.sampled_from(["accept", "send", "answer", "reset", "restart"]), st.integers(0, 9)), max_size=40
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(Steps, st.integers(1, 4))
def test_it_agrees_with_a_dict(tmp_path_factory: pytest.TempPathFactory, steps: list[Any], bound: int) -> None:
    """Through any order of calls the outbox holds what a dict would, and its counts are those of the table."""
    path = tmp_path_factory.mktemp("outbox") / "o"
    outbox = Outbox(path, replace(BOUNDS, windows=6))
    held: dict[int, bytes] = {}
    out: set[int] = set()
    for now, (step, number) in enumerate(steps):
        if step == "accept":
            held[outbox.accept(b"x" * number, 0.0, 0.0)] = b"x" * number
            for seq in sorted(held)[:-6]:
                out.discard(seq)
                del held[seq]
        elif step == "send":
            due = outbox.due(float(now), number, max_unanswered=bound)
            assert [(d.seq, d.record) for d in due] == [(d.seq, held[d.seq]) for d in due]
            assert [d.seq for d in due] == sorted(d.seq for d in due)
            outbox.mark_sent([d.seq for d in due], float(now), 3.0)
            assert len(out | {d.seq for d in due}) <= max(bound, len(out))
            out |= {d.seq for d in due}
            assert sorted(held)[: len(out)] == sorted(out)
        elif step == "answer":
            assert outbox.free(number) == (held.pop(number, None) is not None)
            out.discard(number)
        elif step == "reset":
            outbox.reset_sent()
            assert (outbox.next_due(float(now)) is None) == (not held)
        else:
            outbox, out = reopen(outbox, path, windows=6), set()
        assert (len(outbox), outbox.size) == (len(held), sum(map(len, held.values())))
        ended = sum(count for how, count in outbox.totals.items() if how != "accepted")
        assert outbox.totals["accepted"] == len(held) + ended
    outbox.close()


def test_pressure_is_what_was_never_sent(outbox: Outbox) -> None:
    """Of the others the oldest says for how long; what waited before a reconnect says nothing of the new link."""
    assert outbox.pressure() == Pressure(0, None)
    for at in (10.0, 11.0, 12.0):
        outbox.accept(b"x" * 100, at, at)
    outbox.mark_sent([1], 12.0, 5.0)
    assert outbox.pressure() == Pressure(200, 11.0)
    outbox.reset_sent()
    assert outbox.pressure() == Pressure(0, None)


def test_what_is_dropped_for_the_link_is_shed_and_counted(outbox: Outbox) -> None:
    """It is not sent any more, and counts as shed on purpose; dropping what is gone does nothing."""
    outbox.accept(b"a", 0.0, 0.0)
    outbox.accept(b"b", 0.0, 0.0)
    assert outbox.free(1, "link")
    assert not outbox.free(1, "link")
    assert (send(outbox, 0.0), outbox.shed["link"], len(outbox)) == ([2], 1, 1)
