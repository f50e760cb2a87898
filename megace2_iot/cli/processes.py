"""The tiers of a demo as child processes: started, waited for, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megace2_iot.problems import Problem
from megace2_iot.service import CHILD, READY_FD

READY_WITHIN = 60.0  # s; importing torch on a slow machine takes many of them
STOP_GRACE = 5.0  # s between asking a child to end and killing it


class Child:
    """One process in its own session; its log is a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, ready: asyncio.Future[None], log: Path) -> None:
        self.name, self.process, self.log = name, process, log
        self._ready = ready

    @classmethod
    async def start(
        cls,
        name: str,
        arguments: Sequence[str],
        log: Path,
        extra: Mapping[str, str],
        *,
        module: str = "megace2_iot.cli",
    ) -> Child:
        """Start `megace2 arguments`, or another `module`; it ends when this process does."""
        reader, writer = os.pipe()
        environment = {**os.environ, **extra, READY_FD: str(writer), CHILD: "1"}
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=file,
                stderr=file,
                start_new_session=True,
                pass_fds=(writer,),
                env=environment,
            )
        os.close(writer)
        return cls(name, process, _when_readable(reader), log)

    async def until_ready(self) -> None:
        """Wait for its word; raises `Problem` with the end of its log where it ends instead."""
        gone: asyncio.Future[int] = asyncio.ensure_future(self.process.wait())
        either: set[asyncio.Future[Any]] = {gone, self._ready}
        try:
            async with asyncio.timeout(READY_WITHIN):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise Problem(f"{self.name} was not ready within {READY_WITHIN:.0f} s; see {self.log}") from None
        finally:
            gone.cancel()
        if self.process.returncode is not None:
            raise Problem(f"{self.name} ended with status {self.process.returncode}:\n{self.last_words()}")

    def last_words(self, lines: int = 8) -> str:
        return "\n".join("  " + line for line in self.log.read_text(errors="replace").splitlines()[-lines:])

    async def stop(self) -> None:
        """Close its input, wait, kill."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            async with asyncio.timeout(STOP_GRACE):
                await self.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        self._ready.cancel()


async def stop_all(children: Sequence[Child]) -> None:
    """Stop several at once."""
    await asyncio.gather(*(child.stop() for child in children))


def _when_readable(reader: int) -> asyncio.Future[None]:
    """Done when the other end of the pipe wrote a line; for ever pending where it closed without a word."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def look() -> None:
        loop.remove_reader(reader)
        said = os.read(reader, 16)
        os.close(reader)
        if said and not future.done():
            future.set_result(None)

    loop.add_reader(reader, look)
    return future
