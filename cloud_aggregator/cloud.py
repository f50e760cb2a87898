"""The cloud tier: takes each edge's update the moment it arrives, folds it in, releases the better model.

Updates are judged (`checks`), journalled before they are folded (`store`), folded one at a time in a thread
(`folding`), and answered with a verdict; one that was seen before is answered from the ledger. What people ask for is
done between two folds (`commands`). Nothing here imports torch: the first release and the scores come from the
trainer, a child process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from cloud_aggregator.answering import Answering, Serves
from cloud_aggregator.commands import Commands
from cloud_aggregator.folding import Folding
from cloud_aggregator.scores import Scores
from cloud_aggregator.settings import CloudModel, CloudSettings
from cloud_aggregator.store import Release, Store, UpdateRow, VerdictRow
from cloud_aggregator.updates import QUEUED_OFFERS, Updates, told
from megace2_iot import __version__, messages
from megace2_iot.blobs import Blob, BlobGone, Holder, Puller, chunk_tag, digest
from megace2_iot.bus import BrokerSettings, Bus, Delivery, Presence, connect
from megace2_iot.codec import DecodeError
from megace2_iot.features import MODALITIES
from megace2_iot.messages import BlobRequest, Health, ModelPointer, UpdateOffer
from megace2_iot.ownership import claim
from megace2_iot.parameters import Layout
from megace2_iot.problems import Problem
from megace2_iot.service import tell_health
from megace2_iot.telemetry import Telemetry, prometheus
from megace2_iot.tensors import decode_tensors
from megace2_iot.topics import CLOUD, Topics
from megace2_iot.workers import Worker, WorkerError, worker

__all__ = ["Cloud", "CloudModel", "CloudSettings", "run_cloud"]

_log = logging.getLogger("megace2.cloud")
ANNOUNCE_WITHIN = 1.0  # s for which a release may wait for others that are about to follow


async def run_cloud(
    settings: CloudSettings, topics: Topics, broker: BrokerSettings, *, ready: Callable[[], None] | None = None
) -> None:
    """Run the cloud until it is cancelled."""
    telemetry = Telemetry()
    claim(settings.state_dir / "site", topics.root)
    presence = Presence(topic=topics.cloud_all("state"), payload=_state, family=topics.cloud_all("+"))
    with (
        Store.open(settings.state_dir, durable=settings.durable) as store,
        prometheus(lambda: telemetry, settings.metrics_port),
    ):
        async with (
            worker("cloud_aggregator.trainer") as trainer,
            connect(broker, CLOUD, presence=presence, telemetry=telemetry) as bus,
        ):
            cloud = Cloud(settings, topics, bus, store, trainer)
            await cloud.prepare()
            await cloud.run(ready)


def _state(state: Literal["online", "stopped", "offline"], session: int) -> bytes:
    return messages.State(state=state, session=session, role="cloud", software=__version__).encode()


class Cloud:
    """One site's cloud."""

    def __init__(self, settings: CloudSettings, topics: Topics, bus: Bus, store: Store, trainer: Worker) -> None:
        self.settings, self.topics, self.bus, self.store, self.trainer = settings, topics, bus, store, trainer
        self.telemetry = bus.telemetry
        self.holder = Holder(bus, lambda asker, sha: topics.cloud_all("chunk", chunk_tag(sha)), merge=True)
        self._scores = Scores(trainer, store, self.telemetry, self._scored())
        self._answering = Answering(bus, topics, self._serves, settings.answer_with)
        self._turn = asyncio.Lock()  # held by who changes the aggregation, or announces what came of it
        self._newest = 0
        self._unannounced: Release | None = None
        self._unannounced_since = 0.0  # monotonic s
        self._held: deque[str] = deque(maxlen=4)  # releases on offer; the holder keeps what is being pulled besides

    def _scored(self) -> dict[str, Any] | None:
        """What the trainer needs to read the data that score releases; None where there are none."""
        chosen = self.settings
        if not chosen.data:
            return None
        vectors = "" if chosen.vectors is None else str(chosen.vectors)
        how = {"split": chosen.split, "seed": chosen.seed, "vectors": vectors}
        return {"path": chosen.data, "scale_of": chosen.model.checkpoint, **how}

    # -- the beginning ----------------------------------------------------------------
    async def prepare(self) -> None:
        """Open the family of the store, or make release 1; then fold in what a crash left unfolded."""
        await self._scores.load()  # a wrong file is told before anything is made
        if self.store.family() is None or self.settings.model.checkpoint:
            await self._first_release()
        row = self.store.family()
        assert row is not None
        self._check_asked(row.config)
        self._scores.check(row.config)
        self.folding = Folding(self.settings, self.store)
        self.family = self.folding.family
        self._updates = Updates(self.bus, self.topics, self.store, Puller(self.bus, self.store.blobs), self.folding)
        for waiting in self.store.journal.pending():
            await self._fold(waiting, self.store.journal.body_of(waiting.sha256))

    def _check_asked(self, config: str) -> None:
        """Raise `Problem` where another model is asked for than the store's: it would be ignored in silence."""
        asked, held = self.settings.model, json.loads(config)
        wanted = {name: getattr(asked, name) for name in ("preset", "dims") if name in asked.model_fields_set}
        if "dims" in wanted:  # a modality that is not named is 1 wide
            wanted["dims"] = {**dict.fromkeys(MODALITIES, 1), **asked.dims}
        if asked.checkpoint or all(held.get(name) == value for name, value in wanted.items()):
            return
        raise Problem(
            f"{self.settings.state_dir} holds a model {held['preset']} for {held['dims']}, asked for is {wanted}: "
            "leave that out to go on with it, or choose another state_dir"
        )

    async def _first_release(self) -> None:
        model = self.settings.model
        try:
            made = await self.trainer.call(
                "first", name=model.preset, dims=dict(model.dims), seed=model.seed, checkpoint=model.checkpoint
            )
        except WorkerError as error:
            raise Problem(f"release 1 cannot be made: {error}") from None
        tensors, _ = decode_tensors(made["base"])
        name = made["family"]
        known = self.store.family()
        if known is not None and known.family == name and known.stem == digest(made["stem"]):
            return
        self.store.begin_family(name, made["config"], made["base"], made["stem"])
        origin = model.checkpoint or model.preset
        _log.info("release 1 of family %s: %s, %d parameters", name, origin, Layout.of(tensors).size)

    # -- running ----------------------------------------------------------------------
    async def run(self, ready: Callable[[], None] | None) -> None:
        """Release what is newest, then serve updates and chunks until cancelled."""
        updates = await self.bus.subscribe(self.topics.updates(), limit=QUEUED_OFFERS)
        questions = await self.bus.subscribe(self.topics.edges_up("forward"), limit=256)
        requests = await self.bus.subscribe(self.topics.edges_up("blob_request"), limit=1024)
        commands = Commands(self.store, self.folding, self.telemetry, self._turn, self._released_by_hand)
        newest = self.store.latest(self.family.name)
        self._scores.add(newest)
        await self._publish(newest)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._updates.hear(updates, tasks), name="cloud:updates")
            tasks.create_task(self._hear_requests(requests), name="cloud:requests")
            tasks.create_task(self._fold_offers(), name="cloud:fold")
            tasks.create_task(commands.run(), name="cloud:commands")
            tasks.create_task(self._answering.hear(questions), name="cloud:questions")
            tasks.create_task(self._answering.run(), name="cloud:answers")
            tasks.create_task(self._scores.run(self.family.config, self.family.stem_blob), name="cloud:score")
            tasks.create_task(self._tell_health(), name="cloud:health")
            tasks.create_task(self.holder.run(), name="cloud:holder")
            if ready:
                ready()

    async def _hear_requests(self, messages: AsyncIterator[Delivery]) -> None:
        async for delivery in messages:
            try:
                self.holder.ask(self.topics.parse(delivery.topic).node, BlobRequest.decode(delivery.payload))
            except DecodeError as error:
                self.telemetry.count("messages_rejected")
                _log.warning("%s: %s", delivery.topic, error)

    # -- updates ----------------------------------------------------------------------
    async def _fold_offers(self) -> None:
        """Take offers in turn; announce the release of the last one that is here, so that edges pull no older one."""
        while True:
            edge, offer = await self._updates.next()
            async with self._turn:
                await self._take(edge, offer)
                overdue = time.monotonic() - self._unannounced_since > ANNOUNCE_WITHIN
                if self._unannounced is not None and (overdue or not self._updates.waiting):
                    await self._publish(self._unannounced)

    async def _take(self, edge: str, offer: UpdateOffer) -> None:
        """Read, journal, fold, release, answer."""
        if await self._updates.answered(edge, offer):
            await asyncio.to_thread(self.store.disk.forget, offer.sha256)
            return  # the same offer twice in the queue, or another one with its id
        try:
            body = await self._updates.body(edge, offer)
        except (BlobGone, DecodeError) as error:
            await self._updates.turn_away(edge, offer, f"body: {error}")
            return
        row = UpdateRow.of(edge, offer, time.time())
        await asyncio.to_thread(self.store.journal.receive, row, body)
        await self._fold(row, body)

    async def _fold(self, row: UpdateRow, body: Blob) -> None:
        began = time.monotonic()
        outcome = await asyncio.to_thread(self.folding.take, row, body)
        if outcome.release is not None:
            self.telemetry.time("fold", time.monotonic() - began)
            self.telemetry.count("updates_folded")
            self.telemetry.time("update_lag", max(1e-6, outcome.release.version - 1 - row.base_version))
            await self._released(row, outcome.release)
            return
        self.telemetry.count(f"updates_{outcome.verdict}")
        self.telemetry.count("updates_pushed_out", outcome.pushed_out)
        _log.info("update of %s %s: %s", row.edge, outcome.verdict, outcome.reason)
        reason = told(VerdictRow(outcome.verdict, outcome.reason, None))
        await self._updates.answer(row.edge, row.id, False, reason, None)

    async def _released(self, row: UpdateRow | None, release: Release) -> None:
        """Score a release and tell the edge whose update made it; it is announced later."""
        if self._unannounced is None:
            self._unannounced_since = time.monotonic()
        self._unannounced = release
        self._scores.add(release)
        if row is not None:
            await self._updates.answer(row.edge, row.id, True, "", release.version)
        self.store.prune(self.family.name, self.settings.keep_releases)

    async def _released_by_hand(self, row: UpdateRow | None, release: Release) -> None:
        await self._released(row, release)
        await self._publish(release)

    # -- releases ---------------------------------------------------------------------
    async def _publish(self, release: Release) -> None:
        """Offer the blob, then announce it."""
        family = self.family
        blob = self.store.blobs.view(release.sha256)
        self.holder.offer(release.sha256, blob)
        self.holder.offer(family.stem, family.stem_blob)
        pointer = ModelPointer(
            family=family.name,
            config=family.config,
            version=release.version,
            sha256=release.sha256,
            size=len(blob),
            stem=family.stem,
            stem_size=family.stem_size,
            folded=self.store.journal.folded(family.name),
            created_at=release.created_at,
        )
        await self.bus.keep(self.topics.cloud_all("model"), pointer.encode())
        self.telemetry.count("releases")
        self._newest = release.version
        self._held.append(release.sha256)
        self.holder.keep_only([*self._held, family.stem])
        self._unannounced = None

    def _serves(self) -> Serves:
        """What answers forwarded windows, where no larger model does."""
        family = self.family
        newest = self.store.latest(family.name)
        return Serves(newest, family.config, self.store.blobs.view(newest.sha256), family.stem, family.stem_blob)

    # -- health -----------------------------------------------------------------------
    async def _tell_health(self) -> None:
        began = time.monotonic()

        def health() -> bytes:
            facts: dict[str, Any] = {
                "version": self._newest,
                "live_edges": self.folding.live_edges,
                "quarantined": self.folding.quarantine.count(),
                "rule": self.settings.rule,
            }
            figures, uptime = self.telemetry.snapshot(), time.monotonic() - began
            return Health(at=time.time(), uptime=uptime, figures=figures, facts=facts).encode()

        await tell_health(self.bus, self.topics.cloud_all("health"), health, self.settings.health_interval)
