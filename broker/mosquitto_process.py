"""Mosquitto as a child process: found, started under a guard, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
from pathlib import Path
from typing import IO

from broker.settings import BrokerError, port_in_use

PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/bin")  # often not on a user's PATH

# Mosquitto does not notice that its parent died, so a shell waits for the end of our pipe and then stops it.
GUARD = """
exec 3<&0
"$0" -c "$1" 3<&- & broker=$!
{ read -r _ <&3; kill $broker 2>/dev/null; } & guard=$!
wait $broker; status=$?
kill $guard 2>/dev/null
exit $status
"""

INSTALL = (
    "mosquitto was not found: install it (Debian, Ubuntu, Raspberry Pi OS: sudo apt install mosquitto; "
    "macOS: brew install mosquitto), or use the embedded broker"
)


def find_mosquitto() -> Path | None:
    """The mosquitto binary on PATH, or where packages put it."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *PLACES))
    found = shutil.which("mosquitto", path=path)
    return Path(found) if found else None


def required_mosquitto(binary: Path | None = None) -> Path:
    """`binary`, or the one that is found. Raises `BrokerError` saying how to get it."""
    found = binary or find_mosquitto()
    if found is None or not found.exists():
        raise BrokerError(INSTALL)
    return found


def free_port(host: str, port: int) -> int:
    """`port`, or any free one for 0. Asked before the start, lest we take another broker's answer for ours.

    Raises `BrokerError` where somebody has it.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise port_in_use(host, port, error) from error
        return int(probe.getsockname()[1])


async def mosquitto_version(binary: Path) -> str:
    """The version that `binary` reports, such as "2.0.11". Raises BrokerError where it reports none."""
    process = await asyncio.create_subprocess_exec(
        str(binary), "-h", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    match = re.search(rb"mosquitto version ([0-9.]+)", output)
    if match is None:
        raise BrokerError(f"{binary} does not say which version of mosquitto it is")
    return match[1].decode()


async def start_mosquitto(binary: Path, conf: Path, log: IO[bytes] | None) -> asyncio.subprocess.Process:
    """Start it under its guard; what it logs goes to `log`, or to our standard error."""
    return await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", GUARD, str(binary), str(conf)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for us: the broker is stopped last
    )


async def stop_mosquitto(process: asyncio.subprocess.Process, deadline: float) -> None:
    """Close the pipe that its guard watches; kill the whole group where that takes over `deadline` seconds."""
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline):
            await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
