"""The edge's lesson: adopt a release, personalise, hold a round with the devices, offer the update to the cloud.

One task goes round for ever. A release is adopted between rounds only. The edge itself is a participant of its rounds,
on the `fit` half of its labelled store; devices train meanwhile. Nobody waits for the cloud longer than `FOLD_WAIT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edge_gateway.adoption import Adoption
from edge_gateway.device_updates import DeviceUpdates
from edge_gateway.devices import Devices
from edge_gateway.intake import Intake
from edge_gateway.labels import Labelled, LabelledStore, scores_of
from edge_gateway.rounds import Abandoned, Closed, Round, Rounds, RoundSettings
from edge_gateway.store import EdgeStore
from edge_gateway.tuning import Tuning
from megace2_iot.blobs import BlobGone, Holder, Puller
from megace2_iot.bus import Bus, NotPublished
from megace2_iot.deltas import encode_delta
from megace2_iot.examples import pack
from megace2_iot.messages import ModelPointer, RoundStart, UpdateOffer, Verdict
from megace2_iot.offers import Offers, make_offer
from megace2_iot.parameters import Layout, ModelUpdate
from megace2_iot.tensors import flat_view
from megace2_iot.topics import CLOUD, Topics
from megace2_iot.update_checks import NormBound, norm_of
from megace2_iot.workers import Worker, WorkerError

if TYPE_CHECKING:
    from edge_gateway.predictor import Predictor

_log = logging.getLogger("megace2.learning")
FOLD_WAIT = 10.0  # s an edge waits for its update to be folded in before it opens the next round
MIN_OWN = 8  # labelled samples from which the edge itself takes part


class LearningSettings(BaseModel):
    """How an edge teaches."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rounds: bool = True
    adapters: bool = True
    placement: str = Field("inserted", pattern="^(inserted|output)$")
    adapter_training: dict[str, float | int | str] = {"epochs": 10, "learning_rate": 3e-3}
    training: dict[str, float | int | str] = {}  # of the devices and the edge in rounds
    codec: str = Field("int8", pattern="^(int8|float32)$")
    min_pause: float = Field(2.0, ge=0)  # s between two rounds; devices have other work
    half_rate_at: float = Field(50.0, ge=0)  # release from which rounds train at half the learning rate; 0: never
    max_busy: float = Field(0.8, gt=0, le=1)  # of the model thread, above which no round is opened
    min_deadline: float = Field(5.0, gt=0)
    max_deadline: float = Field(600.0, gt=0)
    personalise_every: float = Field(5.0, ge=0)  # s at least between two fine-tunings of the adapter
    max_examples: float = Field(1e5, ge=0)  # behind a group of one device's update; 0: any
    max_norm_ratio: float = Field(10.0, ge=0)  # of a device's update, to the median of the last ones; 0: any
    max_first_norm: float = Field(0.5, ge=0)  # to the model's own, before there are enough of them; 0: any

    def of_rounds(self) -> RoundSettings:
        return RoundSettings(
            min_deadline=self.min_deadline,
            max_deadline=self.max_deadline,
            max_examples=self.max_examples,
            norms=NormBound(self.max_norm_ratio, self.max_first_norm),
        )


def round_training(settings: LearningSettings, version: int) -> dict[str, float | int | str]:
    """How a round over release `version` trains.

    The rate falls as 1 / (1 + version / half_rate_at): late rounds settle instead of swinging around what they found.
    """
    half = settings.half_rate_at
    scale = 1.0 / (1.0 + version / half) if half else 1.0
    return {**settings.training, "codec": settings.codec, "rate_scale": scale}


class Learning:
    """One edge's learning side."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        edge: str,
        devices: Devices,
        labels: LabelledStore,
        intake: Intake,
        predictor: Predictor,
        thread: ThreadPoolExecutor,
        trainer: Worker,
        store: EdgeStore,
        puller: Puller,
        holders: Mapping[str, Holder],
        settings: LearningSettings,
    ) -> None:
        self._bus, self._topics, self._edge = bus, topics, edge
        self._devices, self._labels = devices, labels
        self._store, self._settings = store, settings
        self._telemetry = bus.telemetry
        self._adoption = Adoption(bus, topics, edge, intake, predictor, thread, trainer, store, puller, holders["down"])
        self._tuning = Tuning(
            labels,
            predictor,
            thread,
            self._adoption.trainer,
            store,
            bus.telemetry,
            placement=settings.placement,
            training=settings.adapter_training,
            every=settings.personalise_every,
        )
        self._rounds = Rounds(settings.of_rounds(), store.round_number())
        self._device_updates = DeviceUpdates(bus, topics, edge, puller, self._adoption, self._rounds)
        self._news = asyncio.Event()
        self._newest: ModelPointer | None = None
        self._residual: np.ndarray[Any, Any] | None = None
        self.offers = Offers(bus, topics.update(edge), holders["up"], CLOUD)
        self._next_round_at = 0.0  # monotonic s
        self._round = 0

    @property
    def pointer(self) -> ModelPointer | None:
        """The release that answers."""
        return self._adoption.pointer

    @property
    def adopted(self) -> asyncio.Event:
        """Set once there is a release."""
        return self._adoption.adopted

    @property
    def facts(self) -> dict[str, Any]:
        """What health tells of it."""
        version = self.pointer.version if self.pointer else None
        return {**self._tuning.facts, "round": self._round, "version": version}

    # -- what comes in ----------------------------------------------------------------
    def pointer_arrived(self, pointer: ModelPointer) -> None:
        """The cloud released: remember the newest, wake up, and note whether our update is in it."""
        if self._newest is None or pointer.version >= self._newest.version or pointer.family != self._newest.family:
            self._newest = pointer
        if folded := pointer.folded.get(self._edge):
            self.offers.folded(folded, pointer.version)
        self._news.set()

    def device_gone(self, device: str) -> None:
        """A will or a `stopped`: out of the round at once."""
        self._rounds.gone(device)
        self._news.set()

    async def update_arrived(self, device: str, offer: UpdateOffer) -> None:
        """A device's delta, inline or to be pulled; it gets a verdict in every case."""
        await self._device_updates.arrived(device, offer)
        self._news.set()

    # -- the lesson -------------------------------------------------------------------
    async def run(self) -> None:
        """Adopt, personalise, hold a round, offer; for ever."""
        if await self._adoption.resume() and self.pointer is not None:
            await self._tuning.resume(self.pointer)
        while True:
            newest = self._newest
            try:
                await self._lesson()
            except (BlobGone, NotPublished) as error:
                _log.info("lesson broken off: %s", error)
                if self._newest is newest:  # else a newer release came, and the next lesson is its
                    await self._wait_for_news(1)
            except WorkerError as error:
                _log.error("%s", error)
                self._telemetry.count("training_failures")
                await asyncio.sleep(5)

    async def _lesson(self) -> None:
        newest = self._newest
        if newest is not None and self._adoption.is_news(newest) and not await self._adoption.adopt(newest):
            self._newest = self.pointer  # not tried again
        if self.pointer is None:
            await self._wait_for_news(None)
            return
        if self._settings.adapters:
            await self._tuning.tune(self.pointer)
        if not self._settings.rounds or not self._may_open():
            await self._pause(self._settings.min_pause)
            return
        if (early := self._next_round_at - time.monotonic()) > 0:
            await self._pause(early)
            return
        closed = await self._hold_round()
        if closed is not None:
            await self._offer(closed)
        self._next_round_at = time.monotonic() + self._settings.min_pause

    async def _pause(self, timeout: float) -> None:
        """Wait between two lessons; not at all where a release waits, that came while the update was offered."""
        if self._newest is None or not self._adoption.is_news(self._newest):
            await self._wait_for_news(timeout)

    async def _wait_for_news(self, timeout: float | None) -> None:
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._news.wait()

    # -- the round --------------------------------------------------------------------
    def _may_open(self) -> bool:
        load = self._telemetry.gauges.get("model_busy", 0.0)
        return load <= self._settings.max_busy

    def _own_samples(self) -> list[Labelled]:
        assert self.pointer is not None
        fit = [sample for sample in self._labels.of_stem(self.pointer.stem) if sample.half == "fit"]
        return fit if len(fit) >= MIN_OWN else []

    async def _hold_round(self) -> Closed | None:
        assert self.pointer is not None
        assert self._adoption.layout is not None
        own, layout = self._own_samples(), self._adoption.layout
        if not own and not self._devices.participants():
            return None
        norm = await asyncio.to_thread(self._model_norm, layout) if self._rounds.needs_model_norm else 0.0
        participants = self._devices.participants() + ([self._edge] if own else [])  # who left meanwhile is not one
        if not participants:
            return None
        opened = self._rounds.open(participants, self.pointer.version, time.monotonic(), layout, norm)
        self._store.keep_round_number(opened.number)
        self._round = opened.number
        start = self._start_message(opened, self.pointer)
        await self._bus.publish(self._topics.edge_all(self._edge, "round"), start.encode())
        own_training = asyncio.create_task(self._train_self(start, own), name="own-training") if own else None
        try:
            return await self._until_closed()
        except asyncio.CancelledError:
            if own_training is not None:
                own_training.cancel()  # Ctrl-C does not wait for it
            raise
        finally:
            if own_training is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await own_training

    def _model_norm(self, layout: Layout) -> float:
        assert self.pointer is not None
        return norm_of(flat_view(self._store.blobs.view(self.pointer.sha256), layout))

    def _start_message(self, opened: Round, pointer: ModelPointer) -> RoundStart:
        return RoundStart(
            round=opened.number,
            family=pointer.family,
            base_version=pointer.version,
            sha256=pointer.sha256,
            size=pointer.size,
            participants=tuple(p for p in opened.participants if p != self._edge),
            deadline=opened.deadline - opened.opened_at,
            training=round_training(self._settings, pointer.version),
        )

    async def _train_self(self, start: RoundStart, own: list[Labelled]) -> None:
        try:
            trainer = await self._adoption.trainer()
            result = await trainer.call(
                "train",
                examples=pack([sample.z for sample in own]),
                scores=scores_of(own),
                seed=start.round,
                settings=dict(start.training),
            )
        except WorkerError as error:
            _log.error("own training failed: %s", error)
            self._rounds.gone(self._edge)
        else:
            update = ModelUpdate(start.base_version, result["num_examples"], result["delta"])
            self._rounds.delta(self._edge, start.round, update, time.monotonic())
        self._news.set()

    async def _until_closed(self) -> Closed | None:
        while True:
            now = time.monotonic()
            outcome = self._rounds.tick(now)
            if isinstance(outcome, Closed):
                self._telemetry.counters["rounds_closed"] = self._rounds.counters["closed"]
                return outcome
            if isinstance(outcome, Abandoned):
                self._telemetry.counters["rounds_abandoned"] = self._rounds.counters["abandoned"]
                _log.info("round %d abandoned: %s", outcome.number, outcome.reason)
                return None
            await self._wait_for_news(max(0.01, outcome.until - now))

    # -- the update -------------------------------------------------------------------
    async def _offer(self, closed: Closed) -> None:
        """Offer the round's mean to the cloud until it is folded in or refused, or `FOLD_WAIT` is over."""
        assert self.pointer is not None
        codec, family, began_from = self._settings.codec, self.pointer.family, closed.base_version
        body, residual = await asyncio.to_thread(encode_delta, closed.delta, codec, self._residual)
        examples = closed.num_examples
        offer = make_offer(self._edge, family, began_from, closed.number, examples, codec, body, closed.duration)
        self._telemetry.count("update_bytes", len(body))
        verdict = self.offers.put(offer, body)
        verdict.add_done_callback(lambda answer: self._judged(answer, closed.number, residual))
        await asyncio.wait([verdict], timeout=FOLD_WAIT)

    def _judged(self, answer: asyncio.Future[Verdict], number: int, residual: np.ndarray[Any, Any] | None) -> None:
        if answer.cancelled():
            self._telemetry.count("updates_unanswered")
        elif answer.result().accepted:
            self._residual = residual  # what int8 left over goes into the next update
            self._telemetry.count("updates_folded")
        else:
            self._residual = None
            self._telemetry.count("updates_refused_by_cloud")
            _log.info("update of round %d refused by the cloud: %s", number, answer.result().reason)
