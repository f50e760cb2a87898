"""One device on one connection: registers, streams its windows, answers rounds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from device_agent.answers import Listener
from device_agent.learning import Learner, Participant
from device_agent.local_answers import LocalAnswers, policies
from device_agent.outbox import Outbox, OutboxError
from device_agent.outbox.keeping import Keeper
from device_agent.sender import Sender
from device_agent.settings import DeviceSettings, open_outbox, outbox_path
from device_agent.windows import Window, to_record
from megace2_iot import __version__
from megace2_iot.blobs import BlobGone, BlobStore, Puller, chunk_tag
from megace2_iot.bus import BrokerSettings, Bus, Delivery, Presence, connect
from megace2_iot.codec import DecodeError
from megace2_iot.features import Modality
from megace2_iot.hardware import clock_id, hardware
from megace2_iot.messages import (
    BlobRequest,
    DeviceConfig,
    DeviceProfile,
    GapReceipt,
    Health,
    LocalModel,
    ModelPointer,
    Prediction,
    Refusal,
    RoundStart,
    State,
    Verdict,
)
from megace2_iot.ownership import claim
from megace2_iot.problems import Problem
from megace2_iot.service import tell_health
from megace2_iot.stem import Stem
from megace2_iot.telemetry import Telemetry
from megace2_iot.tensors import decode_tensors
from megace2_iot.topics import Topics

_log = logging.getLogger("megace2.device")
ASK_AGAIN = 5.0  # s without a configuration, while its edge is there


class DeviceRefused(Problem):
    """The edge cannot serve this device's profile."""


def torch_is_installed() -> bool:
    """Whether a learner could run here; does not import torch."""
    from importlib.util import find_spec

    return find_spec("torch") is not None


class Device:
    """One device's tasks. `learner` None means that it only streams; `blobs` may be shared by a process."""

    def __init__(
        self,
        settings: DeviceSettings,
        topics: Topics,
        broker: BrokerSettings,
        dims: dict[Modality, int],
        blobs: BlobStore,
        learner: Learner | None,
        *,
        rate: float = 1.0,
        embedded_by: str | None = None,
        listener: Listener | None = None,
    ) -> None:
        """`listener` is told of every answer. Raises `Problem` where it insists on what cannot run here."""
        self._listener = listener
        self.settings, self.topics, self._broker = settings, topics, broker
        self._blobs, self._learner = blobs, learner
        self.telemetry = Telemetry()
        self.profile = DeviceProfile(
            hardware=hardware(),
            sensors=tuple(dims),
            dims=dims,
            rate=rate,
            can_train=learner is not None,
            embedded_by=embedded_by,
            policies=policies(settings.answers),
            scene=settings.scene,
        )
        self._session_of_edge = -1
        self._edge_is_new = False  # born since it configured us
        self._edge_is_online = False
        self._stem_id = ""
        self._configured = asyncio.Event()

    async def run(
        self,
        windows: AsyncIterator[Window] | Callable[[Bus], AsyncIterator[Window]],
        *,
        stay: bool = False,
        ready: Callable[[], None] | None = None,
    ) -> None:
        """Stream `windows`, that may come over the device's own connection; returns when all are answered, or with
        `stay` never. Raises `DeviceRefused`.
        """
        claim(outbox_path(self.settings).with_suffix(".site"), self.topics.root)
        outbox = open_outbox(self.settings)
        keeper = Keeper(outbox, self.telemetry, self.settings.commit_interval)
        presence = Presence(topic=self._up("state"), payload=self._state, family=self._up("+"))
        try:
            async with connect(self._broker, self.settings.id, presence=presence, telemetry=self.telemetry) as bus:
                self._puller = Puller(bus, self._blobs)
                try:
                    stream = windows(bus) if callable(windows) else windows
                    await self._serve(bus, outbox, keeper, stream, stay=stay, ready=ready)
                finally:
                    self._puller.close()
        finally:
            outbox.close()
            keeper.tell()

    async def _serve(
        self,
        bus: Bus,
        outbox: Outbox,
        keeper: Keeper,
        windows: AsyncIterator[Window],
        *,
        stay: bool,
        ready: Callable[[], None] | None,
    ) -> None:
        id, edge = self.settings.id, self.settings.edge
        self._bus, self._keeper = bus, keeper
        self._sender = Sender(
            bus,
            self.topics,
            id,
            edge,
            outbox,
            keeper,
            share=self.settings.share_labels,
            noise=self.settings.noise,
            replay_rate=self.settings.replay_rate,
            listener=self._listener,
        )
        self._local = LocalAnswers(self._puller, self.topics, id, edge, self.telemetry)
        self._participant = None
        if self._learner is not None:
            limit = self.settings.private_windows
            self._participant = Participant(bus, self.topics, id, edge, self._learner, self._puller, limit=limit)
        inbox = await bus.subscribe(self.topics.device_inbox(id), limit=256)
        heard = [
            await bus.subscribe(self.topics.edge_all(edge, kind)) for kind in ("state", "model", "local_model", "round")
        ]
        await bus.keep(self._up("profile"), self.profile.encode())
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._hear(inbox), name=f"{id}:inbox"),
                *(tasks.create_task(self._hear(subscription), name=f"{id}:edge") for subscription in heard),
                tasks.create_task(self._sender.run(), name=f"{id}:sender"),
                tasks.create_task(keeper.run(), name=f"{id}:outbox"),
                tasks.create_task(self._tell_health(), name=f"{id}:health"),
                tasks.create_task(self._watch_link(), name=f"{id}:link"),
                tasks.create_task(self._ask_again(), name=f"{id}:asking"),
            ]
            if self._participant:
                running.append(tasks.create_task(self._participant.run(), name=f"{id}:rounds"))
                running.append(tasks.create_task(self._participant.holder.run(), name=f"{id}:holder"))
                running.append(tasks.create_task(self._participant.offers.run(), name=f"{id}:offers"))
            if ready:
                ready()
            await self._stream(windows)
            if stay:
                await asyncio.Event().wait()
            await keeper.until_empty()
            for task in running:
                task.cancel()
        await self._local.close()

    async def _stream(self, windows: AsyncIterator[Window]) -> None:
        async for window in windows:
            local = await self._local.answer(window)
            if self.settings.when_full == "block":
                await self._keeper.room(len(to_record(window)))
            try:
                seq = self._sender.accept(window, local)
            except OutboxError as error:
                _log.error("%s", error)  # counted in the outbox's `lost`
                continue
            if seq is not None and self._participant and self._sender.may_train(window, seq):
                self._participant.add(window)

    # -- what it hears ----------------------------------------------------------------
    async def _hear(self, messages: AsyncIterator[Delivery]) -> None:
        async for delivery in messages:
            address = self.topics.parse(delivery.topic)
            handler = self._HANDLERS.get(address.kind)
            if handler is None or not delivery.payload:
                continue
            if address.tier == "device" and address.peer != self.settings.edge:
                self.telemetry.count("messages_rejected")  # only our edge speaks to us
                continue
            try:
                await handler(self, delivery.payload)
            except DecodeError as error:
                _log.warning("%s: %s", delivery.topic, error)
                self.telemetry.count("messages_rejected")

    async def _on_config(self, payload: bytes) -> None:
        config = DeviceConfig.decode(payload)
        stem = None
        if config.stem is not None:
            stem = await self._get_stem(config.stem, config.stem_size)
        self._sender.configure(config, stem, same_clock=config.clock == clock_id())
        if self._participant and stem is not None and config.stem != self._stem_id:
            self._participant.use_stem(stem)
        self._stem_id = config.stem or ""
        await self._local.use_config(config, stem)
        if self._edge_is_new:  # what it heard from us before it had its model, it could not keep
            self._edge_is_new = False
            self._sender.resend_all()
        self._configured.set()

    async def _get_stem(self, sha256: str, size: int) -> Stem | None:
        edge = self.settings.edge
        try:
            blob = await self._puller.pull(
                sha256,
                size,
                request_topic=self._up("blob_request"),
                chunk_filter=self.topics.edge_all(edge, "chunk", chunk_tag(sha256)),
            )
            tensors, metadata = decode_tensors(blob)
            return Stem.from_tensors(tensors, {"mult_compat": metadata.get("mult_compat") == "true"})
        except (BlobGone, ValueError) as error:
            _log.warning("no stem: %s", error)
            return None

    async def _on_prediction(self, payload: bytes) -> None:
        self._sender.answered(Prediction.decode(payload))

    async def _on_gap_receipt(self, payload: bytes) -> None:
        self._sender.noted(GapReceipt.decode(payload))

    async def _on_refusal(self, payload: bytes) -> None:
        refusal = Refusal.decode(payload)
        if refusal.about == "profile":
            raise DeviceRefused(f"{self.settings.edge} refuses this device: {refusal.reason}")
        _log.warning("%s refused: %s", refusal.about, refusal.reason)
        self.telemetry.count(f"refused_{refusal.about}")

    async def _on_edge_state(self, payload: bytes) -> None:
        """A new birth of the edge: it may have forgotten us and what was on its way."""
        state = State.decode(payload)
        if state.session >= self._session_of_edge:
            self._edge_is_online = state.state == "online"
        if state.state == "online" and state.session > self._session_of_edge:
            if self._session_of_edge >= 0:
                self._sender.resend_all()
                self._edge_is_new = True
            self._session_of_edge = state.session
            await self._bus.repeat()

    async def _on_model(self, payload: bytes) -> None:
        if self._participant:
            self._participant.use_model(ModelPointer.decode(payload))

    async def _on_local_model(self, payload: bytes) -> None:
        await self._local.use_pointer(LocalModel.decode(payload))

    async def _on_round(self, payload: bytes) -> None:
        if self._participant:
            self._participant.round_opened(RoundStart.decode(payload))

    async def _on_verdict(self, payload: bytes) -> None:
        if self._participant:
            self._participant.offers.verdict_arrived(Verdict.decode(payload))

    async def _on_blob_request(self, payload: bytes) -> None:
        if self._participant:
            self._participant.holder.ask(self.settings.edge, BlobRequest.decode(payload))

    _HANDLERS: dict[str, Callable[[Any, bytes], Any]] = {  # noqa: RUF012  # a table, not state
        "config": _on_config,
        "prediction": _on_prediction,
        "gap_receipt": _on_gap_receipt,
        "refusal": _on_refusal,
        "state": _on_edge_state,
        "model": _on_model,
        "local_model": _on_local_model,
        "round": _on_round,
        "verdict": _on_verdict,
        "blob_request": _on_blob_request,
    }

    # -- what it says -----------------------------------------------------------------
    def _up(self, kind: str) -> str:
        return self.topics.device_up(self.settings.id, kind, self.settings.edge)

    def _state(self, state: Literal["online", "stopped", "offline"], session: int) -> bytes:
        return State(state=state, session=session, role="device", software=__version__).encode()

    async def _watch_link(self) -> None:
        """After each reconnect, whatever was unanswered goes out again."""
        seen = self._bus.connects
        while True:
            seen = await self._bus.reconnected(seen)
            self._sender.resend_all()

    async def _ask_again(self) -> None:
        """Say again who we are while our edge does not answer that: a broker whose queue is full drops messages."""
        while not self._configured.is_set():
            await asyncio.sleep(ASK_AGAIN)
            if self._edge_is_online and not self._configured.is_set():
                await self._bus.repeat(anyway=True)

    async def _tell_health(self) -> None:
        began = time.monotonic()

        def health() -> bytes:
            return Health(at=time.time(), uptime=time.monotonic() - began, figures=self.telemetry.snapshot()).encode()

        await tell_health(self._bus, self._up("health"), health, self.settings.health_interval)
