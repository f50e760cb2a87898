"""Finished runs on disk: one JSON file an arm and seed, named by a digest of what it follows from, never run twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from megace2_iot.problems import Problem

LINE_EVERY = 15.0  # s between lines of one run where there is no terminal
Tell = Callable[[str], object]

Result = dict[str, Any]
Results = dict[str, list[Result]]  # by arm, in the order of seeds


def silent(text: str) -> None:
    """Tell nobody."""


class Finished:
    """One folder of results. Raises `Problem` where it cannot be made."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Problem(f"{folder} cannot hold results: {error.strerror}; choose another --out") from None
        self.folder = folder

    def path(self, arm: str, seed: int, settings: Mapping[str, Any]) -> Path:
        """Where the result of these settings lies, or will."""
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        return self.folder / f"{arm}-seed{seed}-{name}.json"

    def of(self, arm: str, seed: int, settings: Mapping[str, Any], make: Callable[[], Result]) -> Result:
        """The result, read where it is there already; else made, and written by rename."""
        path = self.path(arm, seed, settings)
        if path.exists():
            found: Result = json.loads(path.read_text())
            return found
        began = time.monotonic()
        result = {**make(), "arm": arm, "seed": seed, "settings": dict(settings)}
        result["seconds"] = round(time.monotonic() - began, 1)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result) + "\n")
        os.replace(part, path)
        return result


def run_all(
    finished: Finished, title: str, arms: Sequence[str], seeds: int, run: Callable[[str, int, Tell], Result]
) -> tuple[Results, bool]:
    """Every arm with every seed, all arms of a seed first; True where Ctrl-C ended it early.

    `run(arm, seed, tell)` gets its result through `finished`, and may tell how far it is.
    """
    results = {arm: list[Result]() for arm in arms}
    progress = _Progress(title, len(arms) * seeds)
    try:
        for seed in range(seeds):
            for arm in arms:
                with progress.of(f"{arm}, seed {seed}") as tell:
                    results[arm].append(run(arm, seed, tell))
    except KeyboardInterrupt:
        progress.interrupted()
        return results, True
    return results, False


class _Progress:
    """A line for each run, and within it a moving one on a terminal, or one now and then elsewhere."""

    def __init__(self, title: str, runs: int) -> None:
        self._console, self._title, self._runs = Console(stderr=True), title, runs
        self._done, self._began, self._told = 0, time.monotonic(), 0.0

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[Tell]:
        """Tell of one run while it goes on."""
        began, head = time.monotonic(), f"{self._title}, run {self._done + 1} of {self._runs}: {name}"
        with self._console.status(head) as status:

            def tell(text: str) -> None:
                status.update(f"{head}: {text}")
                if not self._console.is_terminal and time.monotonic() - max(self._told, began) > LINE_EVERY:
                    self._told = time.monotonic()
                    self._console.print(f"{head}: {text}", highlight=False, soft_wrap=True)

            yield tell
        self._done += 1
        ended = time.monotonic()
        left = (ended - self._began) / self._done * (self._runs - self._done)
        self._console.print(f"{head}: {ended - began:.0f} s; about {left:.0f} s to go", highlight=False, soft_wrap=True)

    def interrupted(self) -> None:
        """Ctrl-C: say how to go on."""
        text = f"{self._title}: ended by Ctrl-C after {self._done} of {self._runs} runs"
        self._console.print(f"{text}; the same command goes on from there", highlight=False, soft_wrap=True)
