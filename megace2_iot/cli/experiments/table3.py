"""Table 3 of the paper: how long an answer takes through device and edge, and through a cloud that does everything."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from device_agent.extraction.settings import SenseSettings
from device_agent.sensing.pipeline import Extraction
from megace2_iot.cli.experiments import lesson
from megace2_iot.cli.experiments.cell import Bench, measure
from megace2_iot.cli.experiments.clips import digest, folder_of, measured, raw_clips
from megace2_iot.cli.experiments.finished import Finished, Result, Tell, run_all
from megace2_iot.cli.experiments.latency import Cell, Plan, cells, plan
from megace2_iot.cli.experiments.latency_notes import notes_of
from megace2_iot.cli.experiments.latency_tables import tables_of
from megace2_iot.cli.experiments.report import Report
from megace2_iot.cli.experiments.request import QUICK_RATES, QUICK_USERS, RATES, USERS, Request
from megace2_iot.problems import Problem
from megace2_iot.service import leaves

TITLE = "Table 3: latency"
EXTRACTION, TRAINING = "extraction", "training"  # runs beside the cells
QUICK_CLIPS = 3
SECONDS, ROUNDS = 20.0, 18  # of a cell, about; clips of a user at most
QUICK_SECONDS, QUICK_ROUNDS = 5.0, 3


class Comparison:
    """The clips, and every run of the comparison by its name."""

    def __init__(self, request: Request, finished: Finished, scratch: Path) -> None:
        """Raises `Problem` where there are no clips."""
        self.request, self._finished, self._scratch = request, finished, scratch
        link = request.link
        rates = link.rates or (QUICK_RATES if request.quick else RATES)
        users = link.users or (QUICK_USERS if request.quick else USERS)
        self.cells: dict[str, Cell] = {cell.name: cell for cell in cells(rates, users)}
        self.built_in = finished.folder / "clips"
        self.folder = folder_of(link.clips, self.built_in)
        self.clips = raw_clips(self.folder, QUICK_CLIPS if request.quick else None)
        self.digest = digest(self.clips)
        self.cores = link.cloud_cores or os.cpu_count() or 1

    @property
    def arms(self) -> list[str]:
        """What is run, in order."""
        return [EXTRACTION, *self.cells, TRAINING]

    @property
    def clip_bytes(self) -> float:
        """Mean size of a clip's files."""
        return sum(clip.size for clip in self.clips) / len(self.clips)

    def run(self, arm: str, seed: int, tell: Tell) -> Result:
        """One of `arms`, through what is finished."""
        if arm == EXTRACTION:
            return self._extraction()
        if arm == TRAINING:
            training = dict(self.request.learning().training)
            settings = {**self._common(), "training": training}
            return self._finished.of(arm, 0, settings, lambda: _done(lesson.held(self._bench, training)))
        cell = self.cells[arm]
        planned = self._plan(cell)
        settings = {**self._common(), **asdict(cell), "rounds": planned.rounds}
        if cell.arm == "cloud":
            link = self.request.link
            settings |= {"cloud_delay": link.cloud_delay, "cores": self.cores, "replayed": bool(link.cloud_cores)}
        return self._finished.of(arm, 0, settings, lambda: _done(measure(self._bench, cell, planned, tell)))

    def settings(self) -> dict[str, Any]:
        """All that the results follow from, for the report."""
        link = self.request.link
        of_cloud = {"cloud_delay": link.cloud_delay, "cores": self.cores, "replayed": bool(link.cloud_cores)}
        return {**self._common(), **of_cloud, "cells": list(self.cells)}

    def _common(self) -> dict[str, Any]:
        request = self.request
        return {
            "clips": self.digest,
            "preset": request.preset,
            "delay": request.link.delay,
            "extracted": self._extraction()["generation"],
        }

    def _extraction(self) -> Result:
        def make() -> Result:
            load = os.getloadavg()[0]
            found = measured(self.clips, self._scratch / "extracting")
            return {"generation": [each.generation for each in found], "load_before": load}

        return self._finished.of(EXTRACTION, 0, {"clips": self.digest}, make)

    def _plan(self, cell: Cell) -> Plan:
        generations = self._extraction()["generation"]
        seconds, rounds = (QUICK_SECONDS, QUICK_ROUNDS) if self.request.quick else (SECONDS, ROUNDS)
        mean = sum(generations) / len(generations)
        return plan(cell, self.clip_bytes, mean, self.cores, seconds=seconds, rounds=rounds)

    @cached_property
    def _bench(self) -> Bench:
        folder = self._scratch / "site"
        folder.mkdir(exist_ok=True)
        found = measured(self.clips, self._scratch / "extracting", times=1)
        kept = self._extraction()["generation"]
        return Bench(
            folder=folder,
            preset=self.request.preset,
            dims=dict(Extraction(SenseSettings()).dims),
            clips=self.clips,
            extracted=[replace(each, generation=took) for each, took in zip(found, kept, strict=True)],
            delay=self.request.link.delay,
            cloud_delay=self.request.link.cloud_delay,
            cores=self.cores,
            replayed=self.folder if self.request.link.cloud_cores else None,
        )


def _done(work: Coroutine[Any, Any, Result]) -> Result:
    """What it returns; raises `Problem` where every task that failed did so by one."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:
        inner = leaves(group)
        if all(isinstance(leaf, Problem) for leaf in inner):
            raise Problem("\n".join(dict.fromkeys(str(leaf) for leaf in inner))) from None
        raise


def run(request: Request) -> Report:
    """Every cell in both arms, once: quantiles are over clips, and seeds would change nothing."""
    request = replace(request, seeds=1)
    finished = Finished(request.out / "table3", show=request.show)
    with tempfile.TemporaryDirectory(prefix="megace2-table3-") as name:
        comparison = Comparison(request, finished, Path(name))
        outcome = run_all(finished, "table3", comparison.arms, 1, comparison.run)
        settings = comparison.settings() if outcome[0][EXTRACTION] else {}
    results, interrupted = outcome
    by_name: Mapping[str, Result] = {arm: runs[0] for arm, runs in results.items() if runs}
    main, *more = tables_of(comparison.cells, by_name)
    names = "the built-in clips" if comparison.folder == comparison.built_in else f"{len(comparison.clips)} raw clips"
    return Report(
        name="table3",
        title=f"{TITLE}, here on {names}",
        request=request,
        columns=main.columns,
        rows=main.rows,
        results=results,
        data={"name": names, "digests": {0: comparison.digest}},
        notes=notes_of(comparison.cells, by_name, settings, comparison.clip_bytes, len(comparison.clips)),
        readings={"paper edge": [18, 26], "paper cloud": [18, 26]},
        interrupted=interrupted,
        details={"settings": settings},
        more=more,
    )
