"""What systemd hears of a tier: on a real datagram socket, in the file system and by abstract name."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megace2_iot.service import feed_watchdog, notify, tell_ready

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")


@pytest.fixture(params=["file", "abstract"])
def heard(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The supervisor's end, its name in NOTIFY_SOCKET."""
    name = f"@megace2-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1) if name[0] == "@" else name)
        listening.settimeout(60)  # s, for a slow machine
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listening


def all_of(heard: socket.socket) -> list[str]:
    heard.setblocking(False)
    told = []
    while True:
        try:
            told.append(heard.recv(1024).decode())
        except BlockingIOError:
            return told


def test_readiness_is_told(heard: socket.socket):
    """Type=notify waits for it."""
    tell_ready()
    assert heard.recv(1024) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nobody/listens/here", "@megace2-nobody"])
def test_without_a_listener_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch):
    """In a terminal, or under a supervisor that is gone."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


async def test_a_blocked_loop_is_noticed(heard: socket.socket, monkeypatch: pytest.MonkeyPatch):
    """Twice a period while the loop turns, never while something holds it."""
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    feeding = asyncio.create_task(feed_watchdog())
    await asyncio.sleep(0.5)
    beats = all_of(heard)
    time.sleep(0.2)  # noqa: ASYNC251
    blocked = all_of(heard)
    feeding.cancel()
    assert set(beats) == {"WATCHDOG=1"} and len(beats) >= 4
    assert blocked == []


@pytest.mark.parametrize(("limit", "pid"), [("", ""), ("0", ""), ("soon", ""), ("100000", "1")])
async def test_who_is_not_watched_says_nothing(limit: str, pid: str, monkeypatch: pytest.MonkeyPatch):
    """Without WatchdogSec, and in a child of the process that is watched."""
    monkeypatch.setenv("WATCHDOG_USEC", limit)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    async with asyncio.timeout(1):
        await feed_watchdog()


async def test_a_tier_from_its_start_to_its_end(heard: socket.socket):
    """Ready, then alive, then stopping, by a process that SIGTERM ends with status 0."""
    code = (
        "import asyncio, sys; from megace2_iot.service import run, tell_ready\n"
        "async def tier(): tell_ready(); await asyncio.sleep(60)\n"
        "sys.exit(run(tier, 'x'))"
    )
    environment = {**os.environ, "WATCHDOG_USEC": "100000"}
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=environment)
    told = [await asyncio.to_thread(heard.recv, 1024) for _ in range(4)]
    child.send_signal(signal.SIGTERM)
    assert await child.wait() == 0
    assert sorted(set(told)) == [b"READY=1", b"WATCHDOG=1"]
    assert all_of(heard)[-1] == "STOPPING=1"


@pytest.mark.parametrize("heard", ["abstract"], indirect=True)
async def test_the_address_reaches_the_process_that_a_device_becomes(heard: socket.socket, tmp_path: Path):
    """`megace2 device` replaces its own process: same number, same environment, so NotifyAccess=main holds."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "megace2_iot.cli", "device", "--broker", "mqtt://127.0.0.1:1"),
        *("--replay", "synthetic", "--state-dir", str(tmp_path)),
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": ""},
    )
    first = await asyncio.to_thread(heard.recv, 1024)
    arguments = Path(f"/proc/{child.pid}/cmdline").read_text()
    child.terminate()
    await child.wait()
    assert first == b"WATCHDOG=1"
    assert "device_agent" in arguments
