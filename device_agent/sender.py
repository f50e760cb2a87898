"""The outbox's way to the edge: windows become packets, predictions free them, silence sends them again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from device_agent.answers import Answers, Listener, goes_up
from device_agent.compression import Backlog, Choice, Controller
from device_agent.flights import Flight, Flights
from device_agent.local import LocalAnswer
from device_agent.outbox import Due, Outbox
from device_agent.outbox.keeping import Keeper
from device_agent.outbox.order import LIVE_WITHIN
from device_agent.outbox.store import End
from device_agent.outbox.under_way import resend_delay
from device_agent.pacing import Pace
from device_agent.packing import Packer
from device_agent.windows import Window, from_record, to_record
from megace2_iot.bus import Bus, LinkLost, Refused
from megace2_iot.codec import DecodeError
from megace2_iot.labels import half
from megace2_iot.messages import DeviceConfig, Gap, GapReceipt, Prediction
from megace2_iot.stem import Stem
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Topics

_log = logging.getLogger("megace2.sender")
IDLE = 60.0  # s after which the loop looks again although nothing woke it
MOST_GAPS = 64  # in a packet
RECEIPT = 2.0  # s between an edge's receipts; one wakes the sender
GAPS_ALONE = 10.0  # s between two packets of a few gaps and no window


class Sender:
    """One device's windows under way. `share` is the part of labelled windows whose label may leave the device."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        device: str,
        edge: str,
        outbox: Outbox,
        keeper: Keeper,
        *,
        share: float,
        noise: float = 0.0,
        replay_rate: float = 0.0,
        listener: Listener | None = None,
    ) -> None:
        self._bus, self._device, self._outbox, self._keeper, self._share = bus, device, outbox, keeper, share
        self._topic = topics.device_up(device, "packet", edge)
        self._telemetry: Telemetry = bus.telemetry
        self._answers = Answers(self._telemetry, listener)
        self._compression, self._pace = Controller(), Pace(replay_rate)
        self._packer = Packer(device, outbox.epoch, noise)
        self._flights = Flights(self._telemetry)
        self._wake = asyncio.Event()
        self._gaps_alone_at = 0.0  # monotonic s before which no packet of a few gaps and no window is sent

    # -- what comes in ----------------------------------------------------------------
    def configure(self, config: DeviceConfig, stem: Stem | None, *, same_clock: bool) -> None:
        """Send by `config` from now on; `stem` is its stem where windows go out embedded."""
        self._packer.configure(config, stem)
        self._flights.same_clock = same_clock
        self._wake.set()

    def accept(self, window: Window, local: LocalAnswer | None = None) -> int | None:
        """Give one window to the outbox; returns its seq, or None where that is full and sheds it at once.

        With a `local` answer that will do it has its answer, and leaves at once. Raises `OutboxError`.
        """
        record = to_record(window)
        try:
            seq = self._outbox.accept(record, window.captured_at, time.time())
        finally:
            self._keeper.note()
        if seq is None:
            return None
        self._compression.arrived(len(record), time.monotonic())
        config = self._packer.config
        up = config is None or goes_up(config.answers, local, config, seq)
        if local is not None:
            self._answers.local(seq, window.captured_at, local, time.time(), final=not up)
            self._flights.note_truth(window, local.score, first=up)
        if up:
            self._wake.set()
        else:
            self._end(seq, "kept")
            self._telemetry.count("windows_kept")
        return seq

    def shares_label(self, window: Window, seq: int) -> bool:
        """Whether this window's label leaves the device: the edge asks for labels, and it is within `share`."""
        config = self._packer.config
        return config is not None and config.share_labels and self._may_share(window, seq)

    def may_train(self, window: Window, seq: int) -> bool:
        """Whether the window belongs in the private set: labelled, and not kept apart to judge the adapter.

        What may be shared and falls into the gate's half is kept apart whether or not the edge asks for it today: it
        may ask tomorrow, and the base must not have seen it then.
        """
        held_out = self._may_share(window, seq) and half(window.group, self._device, self._outbox.epoch, seq) == "gate"
        return window.label is not None and not held_out

    def _may_share(self, window: Window, seq: int) -> bool:
        """Within `share`, spread evenly over the seqs."""
        return window.label is not None and int(seq * self._share) != int((seq - 1) * self._share)

    def resend_all(self) -> None:
        """After a reconnect or a new birth of the edge: whatever is unanswered goes out again."""
        self._outbox.reset_sent()
        self._wake.set()

    def answered(self, prediction: Prediction) -> None:
        """Take one prediction: free the window, note the times."""
        if prediction.epoch != self._outbox.epoch:
            self._telemetry.count("answers_stale")
            return
        flight = self._flights.ended(prediction.seq)
        self._wake.set()
        if prediction.status == "stem_gone":
            self._packer.stem_gone(prediction.stem)
            self._outbox.reset_sent()
            return
        if not self._end(prediction.seq, "answered"):
            self._telemetry.count("answers_repeated")
            return
        self._telemetry.count("windows_answered" if prediction.status == "answered" else "windows_refused")
        if prediction.status == "refused":
            _log.warning("window %d refused: %s", prediction.seq, prediction.reason)
        now = time.time()
        self._answers.remote(flight.window.captured_at if flight else now, prediction, now)
        if flight:
            self._flights.note(flight, prediction)

    def noted(self, receipt: GapReceipt) -> None:
        """The edge knows of these gaps."""
        if receipt.epoch == self._outbox.epoch:
            self._outbox.noted(receipt.gaps)
            self._keeper.note()
            self._wake.set()

    def _end(self, seq: int, how: End) -> bool:
        """A window leaves; False where it had left before."""
        known = self._outbox.free(seq, how)
        self._keeper.note()
        return known

    # -- what goes out ----------------------------------------------------------------
    async def run(self) -> None:
        """Send what is due, for ever."""
        while True:
            self._wake.clear()
            pause = IDLE
            if (config := self._packer.ready()) is not None:
                if (early := self._pace.wait(time.monotonic())) > 0:
                    await asyncio.sleep(early)
                if await self._send_due(config):
                    continue
                pause = self._pause()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _pause(self) -> float:
        """Seconds until something is due."""
        replay_in = RECEIPT if self._outbox.gaps_are_behind else self._pace.replay_wait(time.monotonic())
        due = self._outbox.next_due(time.time(), replay_in)
        return min(IDLE if due is None else due, GAPS_ALONE if self._outbox.gaps else IDLE)

    async def _send_due(self, config: DeviceConfig) -> bool:
        """Send one packet; False where there is nothing to send."""
        now = time.time()
        gaps = self._outbox.gaps_due(now, MOST_GAPS)
        behind = self._outbox.gaps_are_behind
        replay = 0 if behind else self._pace.replay(config.windows_per_packet, config.rate, time.monotonic())
        due = self._outbox.due(now, config.windows_per_packet, max_unanswered=config.max_unanswered, replay=replay)
        if not due:
            return await self._send_gaps(gaps, behind=behind)
        opened = self._readable(due)
        if not opened:
            return True
        choice = self._choose(config)
        opened = [pair for pair in opened if self._is_kept(pair[0], choice)]
        if opened:
            await self._send(opened, gaps, config, choice, now)
        return True

    async def _send(
        self,
        opened: Sequence[tuple[Due, Window]],
        gaps: Sequence[Gap],
        config: DeviceConfig,
        choice: Choice,
        now: float,
    ) -> None:
        due = [item for item, _ in opened]
        backlog = sum(item.attempts == 0 and now - item.captured_at >= LIVE_WITHIN for item in due)
        live = not backlog and not any(item.attempts for item in due)
        began = time.monotonic()
        payload = self._pack([(item.seq, window) for item, window in opened], gaps, choice, live=live)
        coded = time.monotonic()
        self._outbox.mark_sent(
            [item.seq for item in due], time.time(), resend_delay(due[0].attempts, self._flights.p99())
        )
        if not await self._publish(payload, gaps, due):
            return
        self._compression.sent(
            choice,
            sum(len(item.record) for item in due),
            len(payload),
            coding=coded - began,
            seconds=time.monotonic() - coded,
            round_trip=self._bus.round_trip,
        )
        self._pace.sent(len(due), backlog, config.rate, time.monotonic())
        self._telemetry.count("windows_sent", len(due))
        self._telemetry.count("windows_resent", sum(item.attempts > 0 for item in due))
        self._telemetry.count("windows_replayed", backlog)

    def _pack(
        self, opened: Sequence[tuple[int, Window]], gaps: Sequence[Gap], choice: Choice | None, *, live: bool
    ) -> bytes:
        began, settled = time.perf_counter(), self._outbox.settled()
        payload = self._packer.pack(opened, gaps, choice, settled=settled, live=live, shares_label=self.shares_label)
        took, timed = time.perf_counter() - began, live and len(opened) == 1
        for seq, window in opened:
            generation = took / len(opened) + window.extraction
            self._flights.began(seq, Flight(window, time.time(), generation, timed))
        return payload

    async def _send_gaps(self, gaps: Sequence[Gap], *, behind: bool) -> bool:
        """Tell gaps where no window goes that they could go with; not those alone that the device answered itself."""
        untold = any(set(gap.shed) - {"kept"} for gap in gaps)
        if not gaps or not (behind or (untold and time.monotonic() >= self._gaps_alone_at)):
            return False
        self._gaps_alone_at = time.monotonic() + GAPS_ALONE
        await self._publish(self._pack((), gaps, None, live=False), gaps, ())
        return True

    async def _publish(self, payload: bytes, gaps: Sequence[Gap], due: Sequence[Due]) -> bool:
        """Publish one packet; False where it did not go: then all is sent again, or is too large for the broker."""
        self._outbox.mark_told(gaps, time.time(), resend_delay(0, self._flights.p99()))
        try:
            await self._bus.publish(self._topic, payload)
        except LinkLost:
            await self._bus.wait_connected()
            return False
        except Refused as error:
            _log.error("%s", error)
            self._telemetry.count("windows_oversized", len(due))
            for item in due:
                self._end(item.seq, "oversized")
            return False
        self._telemetry.count("packets_sent")
        self._telemetry.time("packet_bytes", len(payload))
        return True

    def _choose(self, config: DeviceConfig) -> Choice:
        pressure = self._outbox.pressure()
        waited = 0.0 if pressure.oldest is None else max(0.0, time.time() - pressure.oldest)
        choice = self._compression.choose(config.relative_bound, Backlog(pressure.size, waited), time.monotonic())
        self._telemetry.counters[f"packets_coded_{choice.rung}"] = self._compression.counters[choice.rung]
        return choice

    def _is_kept(self, item: Due, choice: Choice) -> bool:
        """False for a window that is shed: the link does not carry all. What was sent before is sent again."""
        if item.attempts or self._compression.keeps(choice):
            return True
        self._end(item.seq, "link")
        return False

    def _readable(self, due: Sequence[Due]) -> list[tuple[Due, Window]]:
        """What can be read, as far as it may share a packet: a recorded stream may change its stem midway."""
        opened: list[tuple[Due, Window]] = []
        for item in due:
            try:
                window = from_record(item.record)
            except (DecodeError, KeyError, TypeError) as error:  # of another version of this program
                _log.error("window %d cannot be read: %s", item.seq, error)
                self._end(item.seq, "unreadable")
                continue
            if opened and window.stem != opened[0][1].stem:
                break
            opened.append((item, window))
        return opened
