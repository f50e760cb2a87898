"""The adapter over the adopted release: tuned on the edge's own store, judged by the gate, put on or taken off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_gateway.labels import Labelled, LabelledStore, scores_of
from edge_gateway.store import EdgeStore
from megace2_iot.examples import pack
from megace2_iot.messages import ModelPointer
from megace2_iot.telemetry import Telemetry
from megace2_iot.workers import Worker

if TYPE_CHECKING:
    from edge_gateway.predictor import Predictor

MIN_FIT = 16  # samples below which an adapter is not trained


class Tuning:
    """What it found out is in `facts`: the gate, its reason, and both accuracies."""

    def __init__(
        self,
        labels: LabelledStore,
        predictor: Predictor,
        thread: ThreadPoolExecutor,
        trainer: Callable[[], Awaitable[Worker]],
        store: EdgeStore,
        telemetry: Telemetry,
        *,
        placement: str,
        training: Mapping[str, float | int | str],
        every: float,
    ) -> None:
        self._labels, self._predictor, self._thread = labels, predictor, thread
        self._trainer, self._store, self._telemetry = trainer, store, telemetry
        self._placement, self._training, self._every = placement, training, every
        self._done: tuple[int, int] = (-1, -1)  # release and state of the store
        self._done_at = -1e9  # monotonic s
        self.facts: dict[str, Any] = {"gate": "blind"}

    async def resume(self, pointer: ModelPointer) -> None:
        """Answer with the adapter of the last run, where it was made for this release."""
        kept = self._store.adapter()
        if kept is not None and self._stands_on(pointer) == kept[1].get("stands_on"):
            await self._answer_with(pointer, *kept)

    def _stands_on(self, pointer: ModelPointer) -> list[str]:
        """What an adapter fits: another release, or another placement, makes it a stranger."""
        return [pointer.sha256, self._placement]

    async def tune(self, pointer: ModelPointer) -> None:
        """Tune the adapter anew where release or store have changed, and let it answer where the gate says so."""
        state = (pointer.version, self._labels.version)
        if state == self._done or time.monotonic() - self._done_at < self._every:
            return
        self._done, self._done_at = state, time.monotonic()
        held = self._labels.of_stem(pointer.stem)
        fit = [sample for sample in held if sample.half == "fit"]
        gate = [sample for sample in held if sample.half == "gate" and not sample.features_saw_label]
        result = await self._personalised(fit, gate, pointer.version)
        leaked = sum(sample.half == "gate" and sample.features_saw_label for sample in held)
        why = f"; {leaked} more have features that were fitted on their labels" if leaked else ""
        self.facts["gate"], self.facts["gate_reason"] = result["gate"], result["reason"] + why
        for figure in ("base_accuracy", "adapter_accuracy"):
            self.facts[figure] = result.get(figure)
        adapter = result.pop("adapter", {})
        if adapter:
            self._store.keep_adapter(adapter, {**result, "stands_on": self._stands_on(pointer)})
            self._telemetry.count("adapters_tuned")
        await self._answer_with(pointer, adapter, result)

    async def _personalised(self, fit: list[Labelled], gate: list[Labelled], seed: int) -> dict[str, Any]:
        if len(fit) < MIN_FIT:
            return {"gate": "blind", "reason": f"{len(fit)} labelled samples, {MIN_FIT} are needed"}
        trainer = await self._trainer()
        return await trainer.call(
            "personalise",
            fit=pack([s.z for s in fit]),
            fit_scores=scores_of(fit),
            gate=pack([s.z for s in gate]),
            gate_scores=scores_of(gate),
            placement=self._placement,
            settings=dict(self._training),
            seed=seed,
        )

    async def _answer_with(
        self, pointer: ModelPointer, adapter: Mapping[str, np.ndarray[Any, Any]], judged: Mapping[str, Any]
    ) -> None:
        from edge_gateway.predictor import Answering  # torch: only the model side of this tier imports it

        answering = Answering(
            adapter=adapter if judged["gate"] == "adapter" else None,
            placement=self._placement,
            calibration=tuple(judged["calibration"]) if judged.get("calibration") else None,
        )
        await asyncio.get_running_loop().run_in_executor(
            self._thread, self._predictor.answer_with, pointer.stem, answering
        )
