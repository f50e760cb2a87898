"""Finished runs on disk: one JSON file an arm and seed, named by a digest of what it follows from, never run twice.

It follows from settings, data and code: of the code count the package's version and `RESULTS`, which is raised by hand.
What the source was besides, a run records.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import megace2_iot
from megace2_iot.problems import Problem

RESULTS = 2  # raise it where code gives other results for the same settings: runs that are finished are made again
LEARNING = ("megace2_iot", "edge_gateway", "cloud_aggregator")  # packages that a run computes with
LINE_EVERY = 15.0  # s between lines of one run where there is no terminal
READ_WITHIN = 0.1  # s; what took longer was run
Tell = Callable[[str], object]

Result = dict[str, Any]
Results = dict[str, list[Result]]  # by arm, in the order of seeds


def silent(text: str) -> None:
    """Tell nobody."""


class NotRunError(Exception):
    """Nothing is finished there, and nothing is to be run."""


def code() -> dict[str, str | int]:
    """The part of a run's key that stands for the code."""
    return {"megace2": megace2_iot.__version__, "results": RESULTS}


@functools.cache
def source() -> str:
    """sha256, 12 digits in hex, over the packages' source: equal for equal code."""
    seen, root = hashlib.sha256(), Path(megace2_iot.__file__).parents[1]
    for path in sorted(path for package in LEARNING for path in (root / package).rglob("*.py")):
        seen.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return seen.hexdigest()[:12]


class Finished:
    """One folder of results; where `show`, nothing is run. Raises `Problem` where the folder cannot be made."""

    def __init__(self, folder: Path, *, show: bool = False) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Problem(f"{folder} cannot hold results: {error.strerror}; choose another --out") from None
        self.folder, self._show = folder, show

    def path(self, arm: str, seed: int, settings: Mapping[str, Any]) -> Path:
        """Where the result of these settings by this code lies, or will."""
        key = {**settings, "code": code()}
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        return self.folder / f"{arm}-seed{seed}-{name}.json"

    def of(self, arm: str, seed: int, settings: Mapping[str, Any], make: Callable[[], Result]) -> Result:
        """The result, read where it is there already; else made, and written by rename.

        Raises NotRunError where nothing is to be run.
        """
        path = self.path(arm, seed, settings)
        if path.exists():
            found: Result = json.loads(path.read_text())
            return found
        if self._show:
            raise NotRunError(path.name)
        began, computed = time.monotonic(), time.process_time()
        result = {**make(), "arm": arm, "seed": seed, "settings": dict(settings), "code": code(), "source": source()}
        result["date"] = time.strftime("%Y-%m-%d")
        result["seconds"] = round(time.monotonic() - began, 1)
        result["cpu_seconds"] = round(time.process_time() - computed, 1)
        part = path.with_suffix(f".{os.getpid()}.part")  # another process may be at the same run
        part.write_text(json.dumps(result) + "\n")
        os.replace(part, path)
        return result


def run_all(
    finished: Finished, title: str, arms: Sequence[str], seeds: int, run: Callable[[str, int, Tell], Result]
) -> tuple[Results, bool]:
    """Every arm with every seed, all arms of a seed first; True where Ctrl-C ended it early.

    `run(arm, seed, tell)` gets its result through `finished`, and may tell how far it is. What `finished` has not and
    may not make is left out.
    """
    results = {arm: list[Result]() for arm in arms}
    progress = _Progress(title, len(arms) * seeds)
    try:
        for seed in range(seeds):
            for arm in arms:
                with contextlib.suppress(NotRunError), progress.of(f"{arm}, seed {seed}") as tell:
                    results[arm].append(run(arm, seed, tell))
    except KeyboardInterrupt:
        progress.interrupted()
        return results, True
    return results, False


class _Progress:
    """A line for each run, and within it a moving one on a terminal, or one now and then elsewhere."""

    def __init__(self, title: str, runs: int) -> None:
        self._console, self._title, self._runs = Console(stderr=True), title, runs
        self._done, self._told = 0, 0.0
        self._times: list[float] = []  # of the runs that were not there already

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
        took, text = time.monotonic() - began, "finished before"
        if took > READ_WITHIN:
            self._times.append(took)
            left = sum(self._times) / len(self._times) * (self._runs - self._done)
            text = f"{took:.0f} s; about {left:.0f} s to go"
        self._console.print(f"{head}: {text}", highlight=False, soft_wrap=True)

    def interrupted(self) -> None:
        """Ctrl-C: say how to go on."""
        text = f"{self._title}: ended by Ctrl-C after {self._done} of {self._runs} runs"
        self._console.print(f"{text}; the same command goes on from there", highlight=False, soft_wrap=True)
