"""Three nodes of another's broker on the loopback, for trials: each may be killed and started again.

The processes of a node are a session of their own that ends when our end of a pipe closes, so they do not outlive us,
however we end. Nothing of them is of use past this machine: nobody is asked for a password.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broker.settings import BrokerError

HOST = "127.0.0.1"
NODES = 3
START_DEADLINE = 90.0  # s; three nodes of Erlang on one busy core
POLL = 0.1  # s
LOG_LINES = 12  # shown where one dies
CONNECT = b"\x10\x19\x00\x04MQTT\x04\x02\x00\x00\x00\x0dmegace2-ready"  # 3.1.1, a clean session
CONNACK, DISCONNECT = b"\x20\x02\x00\x00", b"\xe0\x00"

# The broker's parent waits for the end of our pipe, and then kills its whole session.
GUARD = """
exec 3<&0
"$@" 3<&- </dev/null & broker=$!
{ read -r _ <&3; kill -9 0; } & guard=$!
wait $broker; status=$?
kill $guard 2>/dev/null
exit $status
"""


def free_ports(count: int) -> list[int]:
    """So many ports on which nobody listens now, below those that the system gives to whoever connects meanwhile."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = secrets.randbelow(20_000) + 10_000
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                found.append(port)
    return found


@dataclass(slots=True)
class Node:
    """One node: how it is started, and its process while it runs."""

    name: str
    port: int  # of MQTT
    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    process: asyncio.subprocess.Process | None = field(default=None)

    @property
    def url(self) -> str:
        return f"mqtt://{HOST}:{self.port}"

    async def start(self) -> None:
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", GUARD, "sh", *self.arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                cwd=self.folder,
                start_new_session=True,
            )

    async def kill(self) -> None:
        """As a power cut would: nothing is said to clients or to the other nodes."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        self.process = None

    async def ready(self, deadline: float = START_DEADLINE) -> None:
        """Wait until it answers a CONNECT; raises `BrokerError` with what it logged."""
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        while not await _answers(self.port):
            if self.process is None or self.process.returncode is not None:
                raise BrokerError(f"{self.name} ended at its start:\n{self._tail()}")
            if loop.time() > until:
                raise BrokerError(f"{self.name} did not answer within {deadline:g} s:\n{self._tail()}")
            await asyncio.sleep(POLL)

    def _tail(self) -> str:
        log = self.folder / f"{self.name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:]) if log.exists() else ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster."""

    kind: str
    version: str
    nodes: Sequence[Node]

    @property
    def url(self) -> str:
        """All addresses, as `[broker] url` takes them."""
        return ",".join(node.url for node in self.nodes)


@contextlib.asynccontextmanager
async def running(
    kind: str, version: str, make: Callable[[Path], Sequence[Node]], *, staggered: bool
) -> AsyncIterator[Cluster]:
    """Start all nodes and kill them at the end, however the block ends. `staggered`: the first must be ready first."""
    with tempfile.TemporaryDirectory(prefix=f"megace2-{kind}-", ignore_cleanup_errors=True) as name:
        nodes = make(Path(name))
        try:
            if staggered:
                await nodes[0].start()
                await nodes[0].ready()
            for node in nodes[1 if staggered else 0 :]:
                await node.start()
            for node in nodes:
                await node.ready()
            yield Cluster(kind, version, nodes)
        finally:
            for node in nodes:
                await node.kill()


def required(binary: str, package: str, *places: str) -> Path:
    """Where a server is; raises `BrokerError` saying how to get it."""
    found = shutil.which(binary, path=os.pathsep.join((*places, os.environ.get("PATH", os.defpath), "/usr/sbin")))
    if found is None:
        raise BrokerError(f"{binary} was not found: sudo apt install {package}")
    return Path(found)


async def _answers(port: int) -> bool:
    """Whether an MQTT broker lets somebody in there: one that still looks for its cluster does not."""
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(CONNECT)
                answer = await reader.readexactly(len(CONNACK))
                writer.write(DISCONNECT)
                await writer.drain()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    return answer == CONNACK
