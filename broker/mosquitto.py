"""A private Mosquitto: found, configured, run as a child process on a free port, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from broker.codec import encode
from broker.framing import PacketReader
from broker.mosquitto_process import free_port, mosquitto_version, required_mosquitto, start_mosquitto, stop_mosquitto
from broker.packets import Connack, Connect, Disconnect, ProtocolError
from broker.settings import LOOPBACK, MIB, BrokerError

LOG_LINES = 8  # shown when it dies
POLL = 0.02  # seconds between two looks at a starting broker


@dataclass(frozen=True, slots=True)
class MosquittoSettings:
    """A private Mosquitto on the loopback. Sizes are bytes, times are seconds.

    `max_queued_messages` counts what one client may have waiting: 2,000 chunks of 64 KiB are 125 MiB, two 50 MB
    models. Mosquitto drops beyond it, silently and after its PUBACK; the embedded broker withholds the PUBACK.
    """

    host: str = "127.0.0.1"
    port: int = 0  # 0: any free port
    max_packet_size: int = MIB
    max_inflight_messages: int = 32
    max_queued_messages: int = 2000
    persistence: Path | None = None  # directory for sessions and retained messages; None keeps them in memory
    start_deadline: float = 10.0
    stop_deadline: float = 5.0
    binary: Path | None = None  # None: look for it
    more: tuple[str, ...] = ()  # further lines of mosquitto.conf: a bridge

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK:
            raise BrokerError(f"a private mosquitto asks nobody for a password, so it must not listen on {self.host}")
        if self.max_packet_size < 20:  # 0 is refused by 2.0.11, and less than a CONNECT is of no use
            raise BrokerError(f"max_packet_size {self.max_packet_size} is too small for any MQTT packet")


@dataclass(frozen=True, slots=True)
class MosquittoBroker:
    """A running Mosquitto."""

    host: str
    port: int
    version: str
    pid: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt://{host}:{self.port}"


def mosquitto_config(settings: MosquittoSettings, port: int, folder: Path) -> str:
    """The text of mosquitto.conf; understood by every version from 2.0.11."""
    lines = [
        f"listener {port} {settings.host}",
        "allow_anonymous true",  # on the loopback only
        f"max_packet_size {settings.max_packet_size}",
        f"max_inflight_messages {settings.max_inflight_messages}",
        f"max_queued_messages {settings.max_queued_messages}",
        "set_tcp_nodelay true",
        "sys_interval 10",
        f"pid_file {folder}/pid",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
    ]
    if settings.persistence is None:
        lines.append("persistence false")
    else:
        # Without autosave_on_changes a kill loses up to half an hour of acknowledged messages.
        lines += ["persistence true", f"persistence_location {settings.persistence}/"]
        lines += ["autosave_on_changes true", "autosave_interval 200"]
    if os.geteuid() == 0:
        lines.append("user root")  # else it becomes `mosquitto`, who may not write to our directory
    return "\n".join((*lines, *settings.more)) + "\n"


@contextlib.asynccontextmanager
async def private_mosquitto(settings: MosquittoSettings | None = None) -> AsyncIterator[MosquittoBroker]:
    """Run a Mosquitto of our own. Raises BrokerError where there is none or it does not start."""
    settings = settings or MosquittoSettings()
    binary = required_mosquitto(settings.binary)
    version = await mosquitto_version(binary)
    port = free_port(settings.host, settings.port)
    with tempfile.TemporaryDirectory(prefix="megace2-mosquitto-") as name:
        folder = Path(name)
        Path(folder, "mosquitto.conf").write_text(mosquitto_config(settings, port, folder))
        with (folder / "log").open("wb") as log:
            process = await start_mosquitto(binary, folder / "mosquitto.conf", log)
        try:
            await _wait_until_ready(process, settings, port, folder)
            pid = int(Path(folder, "pid").read_text())
            yield MosquittoBroker(settings.host, port, version, pid)
        finally:
            await stop_mosquitto(process, settings.stop_deadline)


async def _wait_until_ready(
    process: asyncio.subprocess.Process, settings: MosquittoSettings, port: int, folder: Path
) -> None:
    deadline = asyncio.get_running_loop().time() + settings.start_deadline
    while not await _answers(settings.host, port):
        tail = "\n".join((folder / "log").read_text(errors="replace").splitlines()[-LOG_LINES:])
        if process.returncode is not None:
            raise BrokerError(f"mosquitto ended with status {process.returncode} at its start:\n{tail}")
        if asyncio.get_running_loop().time() > deadline:
            raise BrokerError(f"mosquitto did not answer within {settings.start_deadline:g} s:\n{tail}")
        await asyncio.sleep(POLL)


async def _answers(host: str, port: int) -> bool:
    """Whether an MQTT broker accepts a connection there."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(encode(Connect("")))
                packets = PacketReader(64).feed(await reader.readexactly(4))
                writer.write(encode(Disconnect()))
                await writer.drain()
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ProtocolError):
        return False
    return packets == [Connack()]
