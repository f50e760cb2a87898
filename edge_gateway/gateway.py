"""One edge: its connection, its tasks, and who gets which message."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from edge_gateway.answers import Answers
from edge_gateway.devices import MOST_TOLD, Devices
from edge_gateway.distillation import Distillation
from edge_gateway.forwarding import Forwarding
from edge_gateway.inference import Inference
from edge_gateway.intake import BAD, BAD_BURST, Intake
from edge_gateway.labels import LabelledStore
from edge_gateway.learning import Learning
from edge_gateway.quota import Bucket, FairQueue
from edge_gateway.receiving import Receiving
from edge_gateway.replies import Replies
from edge_gateway.scheduling import Load, Needs, Unservable
from edge_gateway.settings import EdgeSettings
from edge_gateway.store import EdgeStore
from megace2_iot import __version__
from megace2_iot.blobs import Holder, Puller, chunk_tag
from megace2_iot.bus import BrokerSettings, Bus, Delivery, NotPublished, Presence, connect
from megace2_iot.codec import DecodeError
from megace2_iot.hardware import clock_id
from megace2_iot.messages import (
    BlobRequest,
    CloudAnswer,
    DeviceProfile,
    Feedback,
    Health,
    ModelPointer,
    Refusal,
    State,
    UpdateOffer,
    Verdict,
)
from megace2_iot.ownership import claim
from megace2_iot.problems import Problem
from megace2_iot.quality import DEFAULT_FLOORS
from megace2_iot.service import tell_health
from megace2_iot.telemetry import Telemetry, prometheus
from megace2_iot.topics import Topics, check_id
from megace2_iot.workers import Worker, worker

if TYPE_CHECKING:
    from edge_gateway.predictor import Predictor

_log = logging.getLogger("megace2.edge")
LOAD_EVERY = 2.0  # s between two readings of the load
KEEP_EVERY = 2.0  # s between two times that what was seen goes to the disk


async def run_edge(
    settings: EdgeSettings, topics: Topics, broker: BrokerSettings, *, ready: Callable[[], None] | None = None
) -> None:
    """Run one edge until it is cancelled."""
    telemetry = Telemetry()
    claim(settings.state_dir / settings.id / "site", topics.root)
    try:
        store = EdgeStore(settings.state_dir / settings.id)
    except OSError as error:
        raise Problem(f"{settings.state_dir} cannot be used: {error.strerror}; choose another state_dir") from None
    with (
        contextlib.closing(LabelledStore(store.directory / "labelled.sqlite", settings.labelled_windows)) as labels,
        ThreadPoolExecutor(1, "model") as thread,
        prometheus(lambda: telemetry, settings.metrics_port),
    ):
        predictor = await _start_predictor(settings, thread)
        _log.info("the model answers on %s by %s", predictor.device, predictor.runtime)
        presence = Presence(
            topic=topics.edge_all(settings.id, "state"), payload=_state, family=topics.edge_all(settings.id, "+")
        )
        async with (
            worker("edge_gateway.personalizer") as trainer,
            connect(broker, settings.id, presence=presence, telemetry=telemetry) as bus,
        ):
            await Gateway(settings, topics, bus, labels, predictor, thread, trainer, store).run(ready)


async def _start_predictor(settings: EdgeSettings, thread: ThreadPoolExecutor) -> Predictor:
    def start() -> Predictor:
        from edge_gateway.predictor import Predictor  # seconds of importing torch, off the loop

        return Predictor(settings.device, settings.threads, settings.runtime, settings.precision)

    try:
        return await asyncio.get_running_loop().run_in_executor(thread, start)
    except ValueError as error:
        raise Problem(str(error)) from None
    except ModuleNotFoundError as error:
        raise Problem(f"an edge needs {error.name}: pip install 'megace2-iot[torch]'") from None


def _state(state: Literal["online", "stopped", "offline"], session: int) -> bytes:
    return State(state=state, session=session, role="edge", software=__version__).encode()


def _sender(node: str) -> str:
    """Its id; raises `DecodeError` for what cannot be one, on a broker that takes any topic: it is not remembered."""
    try:
        return check_id(node)
    except ValueError:
        raise DecodeError("its topic names no node") from None


class Gateway:
    """Wires the parts of one edge together."""

    def __init__(
        self,
        settings: EdgeSettings,
        topics: Topics,
        bus: Bus,
        labels: LabelledStore,
        predictor: Predictor,
        thread: ThreadPoolExecutor,
        trainer: Worker,
        store: EdgeStore,
    ) -> None:
        self.settings, self.topics, self.bus = settings, topics, bus
        self.labels, self.store, self.telemetry = labels, store, bus.telemetry
        self.devices = Devices(settings.scheduling, clock_id(), settings.inference.remembered_answers)
        for device, window in store.dedup(settings.inference.remembered_answers).items():
            if record := self.devices.get(device):
                record.dedup = window
        edge = settings.id
        self.holders: Mapping[str, Holder] = {
            "down": Holder(bus, lambda asker, sha: topics.edge_all(edge, "chunk", chunk_tag(sha)), merge=True),
            "up": Holder(bus, lambda asker, sha: topics.edge_up(edge, "chunk"), merge=False),
        }
        self.forwarding = Forwarding(bus, topics, edge, settings.forwarding)
        self.distillation: Distillation | None = None
        if settings.scheduling.answers != "edge":
            self.distillation = Distillation(
                bus,
                topics,
                edge,
                store,
                self.holders["down"],
                lambda: self.learning.pointer,
                settings.distillation,
            )
        self.replies = Replies(bus, topics, edge, 4 * settings.inference.max_queued)
        answers = Answers(self.replies, self.forwarding, bus.telemetry)
        self.inference = Inference(answers, predictor, thread, bus.telemetry, settings.inference, self.distillation)
        self.intake = Intake(
            topics,
            self.devices,
            labels,
            answers,
            self.replies,
            bus.telemetry,
            {**DEFAULT_FLOORS, **settings.floors},
            settings.scenes,
            self.inference.put,
            store.quarantine,
        )
        waiting = FairQueue[Delivery](
            settings.quota,
            settings.inference.max_queued,
            settings.inference.max_queued_bytes,
            2 * settings.scheduling.max_unanswered,
        )
        self.receiving = Receiving(topics, self.devices, waiting, bus.telemetry)
        self.learning = Learning(
            bus,
            topics,
            edge,
            self.devices,
            labels,
            self.intake,
            predictor,
            thread,
            trainer,
            store,
            Puller(bus, store.blobs),
            self.holders,
            settings.learning,
        )
        self._pulls: set[asyncio.Task[None]] = set()
        self._load = Load()
        self._session_of_cloud = -1
        self._bad = Bucket()  # of bad messages that the log tells

    async def run(self, ready: Callable[[], None] | None) -> None:
        """Subscribe, start every task, and run until cancelled."""
        edge, topics, bus = self.settings.id, self.topics, self.bus
        limit = self.settings.inference.max_queued
        packets = await bus.subscribe(topics.devices_of(edge, "packet"), limit=limit, patient=True)
        others = [
            await bus.subscribe(topics.devices_of(edge, kind), limit=1024)
            for kind in ("state", "profile", "feedback", "update", "blob_request")
        ]
        others.append(await bus.subscribe(topics.edge_inbox(edge), limit=256))
        others.extend([await bus.subscribe(topics.cloud_all(kind), limit=64) for kind in ("model", "state")])
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for number, subscription in enumerate(others):
                tasks.create_task(self._hear(subscription), name=f"{edge}:hear-{number}")
            turn = self.settings.inference.max_batch_size
            taking = self.receiving.run(packets, self.intake.take, self.inference.until_room, turn)
            tasks.create_task(taking, name=f"{edge}:intake")
            tasks.create_task(self.intake.keep_deadlines(), name=f"{edge}:scenes")
            tasks.create_task(self.inference.run_model(), name=f"{edge}:model")
            tasks.create_task(self.replies.send(), name=f"{edge}:answers")
            tasks.create_task(self.forwarding.run(), name=f"{edge}:forwarding")
            tasks.create_task(self.learning.run(), name=f"{edge}:learning")
            tasks.create_task(self.learning.offers.run(), name=f"{edge}:offers")
            tasks.create_task(self._configure_all(), name=f"{edge}:scheduling")
            tasks.create_task(self._keep_seen(), name=f"{edge}:seen")
            tasks.create_task(self._tell_health(), name=f"{edge}:health")
            if self.distillation is not None:
                tasks.create_task(self.distillation.run(), name=f"{edge}:distillation")
            for name, holder in self.holders.items():
                tasks.create_task(holder.run(), name=f"{edge}:holder-{name}")
            if ready:
                ready()

    # -- what it hears ----------------------------------------------------------------
    async def _hear(self, messages: AsyncIterator[Delivery]) -> None:
        async for delivery in messages:
            address = self.topics.parse(delivery.topic)
            handler = self._HANDLERS.get((address.tier, address.kind))
            if handler is None or not delivery.payload:
                continue
            try:
                await handler(self, _sender(address.node), delivery.payload)
            except DecodeError as error:
                self.telemetry.count("messages_rejected")
                if self._bad.pay(BAD, BAD_BURST, time.monotonic()):
                    _log.warning("%.200s: %s", delivery.topic, error)

    async def _on_state(self, device: str, payload: bytes) -> None:
        changed = self.devices.note_state(device, State.decode(payload))
        if changed is not None:
            _log.info("%s is %s", device, changed)
        if changed in ("offline", "stopped"):
            self.learning.device_gone(device)
            self.intake.device_gone(device)

    async def _on_profile(self, device: str, payload: bytes) -> None:
        record = self.devices.get(device)
        if record is None:
            await self._refuse(device, "this edge has no room for one more device")
            return
        record.profile = DeviceProfile.decode(payload)
        record.config, record.refused = None, ""
        await self._configure(device)

    async def _on_feedback(self, device: str, payload: bytes) -> None:
        feedback = Feedback.decode(payload)
        known = self.labels.label(device, feedback.epoch, feedback.seq, feedback.score)
        self.telemetry.count("labels" if known else "labels_unmatched")

    async def _on_update(self, device: str, payload: bytes) -> None:
        """In a task of its own: a large update is pulled while others are heard."""
        offer = UpdateOffer.decode(payload)
        if len(self._pulls) >= 64:
            self.telemetry.count("updates_dropped")  # offered again after 5 s
            return
        task = self._tasks.create_task(self.learning.update_arrived(device, offer), name=f"update:{device}")
        self._pulls.add(task)
        task.add_done_callback(self._pulls.discard)

    async def _on_device_request(self, device: str, payload: bytes) -> None:
        self.holders["down"].ask(device, BlobRequest.decode(payload))

    async def _on_cloud_request(self, edge: str, payload: bytes) -> None:
        self.holders["up"].ask("cloud", BlobRequest.decode(payload))

    async def _on_verdict(self, edge: str, payload: bytes) -> None:
        self.learning.offers.verdict_arrived(Verdict.decode(payload))

    async def _on_model(self, cloud: str, payload: bytes) -> None:
        self.learning.pointer_arrived(ModelPointer.decode(payload))

    async def _on_cloud_state(self, cloud: str, payload: bytes) -> None:
        state = State.decode(payload)
        if state.session >= self._session_of_cloud:  # a will may arrive after the next birth
            self._session_of_cloud = state.session
            self.forwarding.cloud_is_online = state.state == "online"

    async def _on_cloud_answer(self, edge: str, payload: bytes) -> None:
        self.forwarding.arrived(CloudAnswer.decode(payload))

    _HANDLERS: dict[tuple[str, str], Callable[[Any, str, bytes], Any]] = {  # noqa: RUF012  # a table, not state
        ("device", "state"): _on_state,
        ("device", "profile"): _on_profile,
        ("device", "feedback"): _on_feedback,
        ("device", "update"): _on_update,
        ("device", "blob_request"): _on_device_request,
        ("edge", "blob_request"): _on_cloud_request,
        ("edge", "verdict"): _on_verdict,
        ("edge", "cloud_answer"): _on_cloud_answer,
        ("cloud", "model"): _on_model,
        ("cloud", "state"): _on_cloud_state,
    }

    # -- registration and scheduling --------------------------------------------------
    async def _configure_all(self) -> None:
        """Measure the load, and publish every configuration that it changes."""
        await self.learning.adopted.wait()
        busy, at = 0.0, time.monotonic()
        while True:
            for record in list(self.devices):
                await self._configure(record.id)
            await asyncio.sleep(LOAD_EVERY)
            now = time.monotonic()
            self._load = Load(
                busy=(self.inference.busy_seconds - busy) / (now - at),
                arriving=self.devices.arriving(),
                devices=len(self.devices),
            )
            busy, at = self.inference.busy_seconds, now
            self.telemetry.gauge("model_busy", self._load.busy)
            self.telemetry.gauge("windows_arriving", self._load.arriving)
            self.telemetry.gauge("packets_waiting", len(self.receiving))
            self.telemetry.gauge("windows_queued", self.inference.queued)
            self.telemetry.gauge("labelled_windows", len(self.labels))

    async def _keep_seen(self) -> None:
        """Write down what was seen, and only then say to devices what gaps are known; for ever, and at the end."""
        try:
            while True:
                await asyncio.sleep(KEEP_EVERY)
                self._keep_dedup()
                self.intake.gaps.send_receipts()
        finally:
            self._keep_dedup()

    def _keep_dedup(self) -> None:
        self.store.keep_dedup({record.id: record.dedup for record in self.devices})

    async def _configure(self, device: str) -> None:
        needs = self._needs()
        if needs is None:
            return
        planned = self.devices.configure(device, needs, self._load)
        if isinstance(planned, Unservable):
            await self._refuse(device, planned.reason)
        elif planned is not None:
            await self.bus.keep(self.topics.device_down(device, "config", self.settings.id), planned.encode())

    def _needs(self) -> Needs | None:
        pointer = self.learning.pointer
        if pointer is None:
            return None
        from megace2_iot.model.config import ModelConfig  # the predictor has imported torch already

        config = ModelConfig.from_json(pointer.config)
        return Needs(config.dims, config.width, config.preset, pointer.family, pointer.stem, pointer.stem_size)

    async def _refuse(self, device: str, reason: str) -> None:
        self.telemetry.count("profiles_refused")
        _log.warning("%s refused: %s", device, reason)
        topic = self.topics.device_down(device, "refusal", self.settings.id)
        with contextlib.suppress(NotPublished):
            await self.bus.publish(topic, Refusal(about="profile", reason=reason).encode())

    # -- what it says -----------------------------------------------------------------
    async def _tell_health(self) -> None:
        began = time.monotonic()

        def health() -> bytes:
            facts = {**self.learning.facts, "devices": sum(record.online for record in self.devices)}
            facts |= {**self.devices.missing(), **self.receiving.flooded(MOST_TOLD)}
            figures, uptime = self.telemetry.snapshot(), time.monotonic() - began
            return Health(at=time.time(), uptime=uptime, figures=figures, facts=facts).encode()

        await tell_health(
            self.bus, self.topics.edge_all(self.settings.id, "health"), health, self.settings.health_interval
        )
