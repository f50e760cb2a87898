"""The updates of an edge's devices: read, given to the round, and answered with a verdict in every case."""

from __future__ import annotations

import contextlib
import logging
import time

from edge_gateway.adoption import Adoption
from edge_gateway.rounds import Rounds
from megace2_iot.blobs import BlobGone, Puller
from megace2_iot.bus import Bus, NotPublished
from megace2_iot.codec import DecodeError
from megace2_iot.deltas import decode_delta
from megace2_iot.messages import UpdateOffer, Verdict
from megace2_iot.offers import body_of
from megace2_iot.parameters import ModelUpdate
from megace2_iot.topics import Topics
from megace2_iot.update_checks import schema

_log = logging.getLogger("megace2.learning")
WELCOME = ("", "duplicate", "joins_next")


class DeviceUpdates:
    """Judges what devices offer over the release that `adoption` holds."""

    def __init__(self, bus: Bus, topics: Topics, edge: str, puller: Puller, adoption: Adoption, rounds: Rounds) -> None:
        self._bus, self._topics, self._edge = bus, topics, edge
        self._puller, self._adoption, self._rounds = puller, adoption, rounds

    async def arrived(self, device: str, offer: UpdateOffer) -> None:
        """Take a device's delta, inline or to be pulled."""
        reason = await self._given(device, offer)
        telemetry = self._bus.telemetry
        for name, count in self._rounds.counters.items():
            telemetry.counters[f"rounds_{name}"] = count
        if reason not in WELCOME:
            telemetry.count("updates_refused")
            _log.info("update of %s for round %d refused: %s", device, offer.round, reason)
        verdict = Verdict(id=offer.id, accepted=reason in WELCOME, reason=reason)
        with contextlib.suppress(NotPublished):
            await self._bus.publish(self._topics.device_down(device, "verdict", self._edge), verdict.encode())

    async def _given(self, device: str, offer: UpdateOffer) -> str:
        """What the round says to it; a device with nothing to give, or nothing good, is waited for no longer."""
        if not offer.num_examples:
            self._rounds.gone(device, offer.round)
            return ""
        try:
            update = await self._read(device, offer)
        except (ValueError, BlobGone, DecodeError) as error:
            self._rounds.gone(device, offer.round)
            return f"{'body' if isinstance(error, BlobGone | DecodeError) else 'schema'}: {error}"
        return self._rounds.delta(device, offer.round, update, time.monotonic())

    async def _read(self, device: str, offer: UpdateOffer) -> ModelUpdate:
        """The delta; its offer is judged before the body is pulled. Raises ValueError, DecodeError or BlobGone."""
        pointer, layout = self._adoption.pointer, self._adoption.layout
        if pointer is None or layout is None or offer.family != pointer.family:
            raise ValueError(f"this edge trains family {pointer.family if pointer else 'none yet'}")
        if found := schema(layout, offer.codec, offer.size, offer.num_examples):
            raise ValueError(found.detail)
        request_topic = self._topics.device_down(device, "blob_request", self._edge)
        chunk_filter = self._topics.device_up(device, "chunk", self._edge)
        body = await body_of(offer, self._puller, request_topic=request_topic, chunk_filter=chunk_filter)
        if offer.inline is None:
            self._puller.forget(offer.sha256)
        return ModelUpdate(offer.base_version, offer.num_examples, decode_delta(body, offer.codec, layout.size))
