"""The outbox's way to the edge: windows become packets, predictions free them, silence sends them again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass

from device_agent.answers import Answers, Listener, goes_up
from device_agent.compression import RUNGS, Backlog, Choice, Controller
from device_agent.local import LocalAnswer
from device_agent.noise import new_secret
from device_agent.outbox import Due, Outbox, resend_delay
from device_agent.windows import Window, from_record, to_packet_window, to_record
from megace2_iot.bus import Bus, LinkLost, Refused
from megace2_iot.codec import DecodeError
from megace2_iot.labels import half
from megace2_iot.messages import DeviceConfig, FeaturePacket, PacketWindow, Prediction
from megace2_iot.stem import Stem
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Topics

_log = logging.getLogger("megace2.sender")
LIVE_WITHIN = 1.0  # s: what waited longer before its first sending is backlog, kept out of latency figures
RECENT = 200  # answers behind the p99 that paces re-sending
RECENT_TRUTHS = 50  # answers behind the live accuracy
IDLE = 60.0  # s after which the loop looks again although nothing woke it


@dataclass(slots=True)
class _Flight:
    """One unanswered window."""

    window: Window
    sent_at: float
    generation: float
    live: bool


class Sender:
    """One device's windows under way. `share` is the part of labelled windows whose label may leave the device."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        device: str,
        edge: str,
        outbox: Outbox,
        *,
        share: float,
        noise: float = 0.0,
        listener: Listener | None = None,
    ) -> None:
        self._bus, self._topics, self._device, self._edge = bus, topics, device, edge
        self._outbox, self._share = outbox, share
        self._telemetry: Telemetry = bus.telemetry
        self._answers = Answers(self._telemetry, listener)
        self._compression = Controller()
        self._noise, self._secret = noise, new_secret()
        self._flights: dict[int, _Flight] = {}
        self._wake = asyncio.Event()
        self._freed = asyncio.Event()
        self._latencies: deque[float] = deque(maxlen=RECENT)
        self._hits: deque[bool] = deque(maxlen=RECENT_TRUTHS)
        self._min_round_trip = float("inf")
        self._config: DeviceConfig | None = None
        self._stem: Stem | None = None
        self._stem_id: str | None = None
        self._same_clock = False
        self._next_at = 0.0  # monotonic s before which the edge's rate allows no packet

    # -- what comes in ----------------------------------------------------------------
    def configure(self, config: DeviceConfig, stem: Stem | None, *, same_clock: bool) -> None:
        """Send by `config` from now on; `stem` is its stem where windows go out embedded."""
        self._config, self._stem, self._stem_id = config, stem, config.stem
        self._same_clock = same_clock
        self._wake.set()

    def accept(self, window: Window, local: LocalAnswer | None = None) -> int:
        """Commit one window to the outbox; returns its seq. From here on it is not lost.

        With a `local` answer that will do it has its answer, and leaves at once.
        """
        record = to_record(window)
        seq = self._outbox.accept(record, window.captured_at)
        self._compression.arrived(len(record), time.monotonic())
        self._telemetry.count("windows_accepted")
        config = self._config
        up = config is None or goes_up(config.answers, local, config, seq)
        if local is not None:
            self._answers.local(seq, window.captured_at, local, time.time(), final=not up)
            self._note_truth(window, local.score, first=up)
        if up:
            self._wake.set()
        else:
            self._outbox.answered(seq)
            self._telemetry.count("windows_kept")
            self._freed.set()
        return seq

    def shares_label(self, window: Window, seq: int) -> bool:
        """Whether this window's label leaves the device: the edge asks for labels, and it is within `share`."""
        return self._config is not None and self._config.share_labels and self._may_share(window, seq)

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
        flight = self._flights.pop(prediction.seq, None)
        if prediction.status == "stem_gone":
            if prediction.stem != self._stem_id:
                self._stem = None  # embedded windows wait for the configuration that names the new stem
            self._outbox.reset_sent()
            self._wake.set()
            return
        if not self._outbox.answered(prediction.seq):
            self._telemetry.count("answers_repeated")
            return
        self._telemetry.count("windows_answered" if prediction.status == "answered" else "windows_refused")
        if prediction.status == "refused":
            _log.warning("window %d refused: %s", prediction.seq, prediction.reason)
        self._freed.set()
        now = time.time()
        self._answers.remote(flight.window.captured_at if flight else now, prediction, now)
        if flight:
            self._note_times(flight, prediction)
            if prediction.score is not None:
                self._note_truth(flight.window, prediction.score)
        self._wake.set()

    def _note_times(self, flight: _Flight, prediction: Prediction) -> None:
        now, timings = time.time(), prediction.timings
        if timings is None or not flight.live:
            return
        residence = timings.answered_at - timings.received_at
        round_trip = max(0.0, now - flight.sent_at - residence)
        self._min_round_trip = min(self._min_round_trip, round_trip)
        if self._same_clock:
            up, down = timings.received_at - flight.sent_at, now - timings.answered_at
        else:  # an estimate between machines: the best round trip seen, halved
            up = down = self._min_round_trip / 2
        end_to_end = now - flight.window.captured_at
        self._latencies.append(end_to_end)
        for name, seconds in (
            ("generation", flight.generation),
            ("transmission", up),
            ("queue", timings.queue),
            ("inference", timings.inference),
            ("result", down),
            ("end_to_end", end_to_end),
        ):
            self._telemetry.time(name, max(0.0, seconds))

    def _note_truth(self, window: Window, score: float, *, first: bool = False) -> None:
        """Compare with the truth, where it is known; of a `first` answer, that another will follow, apart."""
        if window.truth is None:
            return
        hit = (score >= 0) == (window.truth >= 0)
        if first:
            self._telemetry.count("first_truth_known")
            self._telemetry.count("first_truth_hit", int(hit))
            return
        self._telemetry.count("truth_known")
        self._telemetry.count("truth_hit", int(hit))
        self._hits.append(hit)
        self._telemetry.gauge("live_accuracy", sum(self._hits) / len(self._hits))

    # -- what goes out ----------------------------------------------------------------
    async def until_idle(self) -> None:
        """Wait until nothing is waiting and nothing is unanswered."""
        while len(self._outbox):
            self._freed.clear()
            await self._freed.wait()

    async def run(self) -> None:
        """Send what is due, for ever."""
        while True:
            self._wake.clear()
            config = self._config
            pause = IDLE
            if config is not None and (config.stage == "features" or self._stem is not None):
                if (early := self._next_at - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                if await self._send_due(config):
                    continue
                pause = self._outbox.next_due(time.time()) or IDLE
            self._gauges()
            try:
                async with asyncio.timeout(min(pause, IDLE)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _send_due(self, config: DeviceConfig) -> bool:
        now = time.time()
        due = self._outbox.due(now, config.windows_per_packet, max_unanswered=config.max_unanswered)
        if not due:
            return False
        opened = self._readable(due)
        if not opened:
            return True
        choice = self._choose(config)
        opened = [pair for pair in opened if self._is_kept(pair[0], choice)]
        if not opened:
            return True
        due = [item for item, _ in opened]
        live = len(due) == 1 and due[0].attempts == 0 and now - due[0].captured_at < LIVE_WITHIN
        began = time.monotonic()
        payload = self._packet([(item.seq, window) for item, window in opened], config, choice, live=live)
        coded = time.monotonic()
        self._outbox.mark_sent([item.seq for item in due], time.time(), resend_delay(due[0].attempts, self._p99()))
        try:
            await self._bus.publish(self._topics.device_up(self._device, "packet", self._edge), payload)
        except LinkLost:
            await self._bus.wait_connected()
            return True
        except Refused as error:
            _log.error("%s", error)
            self._telemetry.count("windows_oversized", len(due))
            for item in due:
                self._outbox.answered(item.seq)
            return True
        self._compression.sent(
            choice,
            sum(len(item.record) for item in due),
            len(payload),
            coding=coded - began,
            seconds=time.monotonic() - coded,
            round_trip=self._bus.round_trip,
        )
        if config.rate > 0:
            self._next_at = time.monotonic() + len(due) / config.rate
        self._telemetry.count("windows_sent", len(due))
        self._telemetry.count("packets_sent")
        self._telemetry.count("windows_resent", sum(item.attempts > 0 for item in due))
        self._telemetry.time("packet_bytes", len(payload))
        return True

    def _choose(self, config: DeviceConfig) -> Choice:
        size, oldest = self._outbox.backlog()
        waited = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        return self._compression.choose(config.relative_bound, Backlog(size, waited), time.monotonic())

    def _is_kept(self, item: Due, choice: Choice) -> bool:
        """False for a window that is shed: the link does not carry all. What was sent before is sent again."""
        if item.attempts or self._compression.keeps(choice):
            return True
        self._outbox.drop(item.seq)
        self._freed.set()
        return False

    def _readable(self, due: list[Due]) -> list[tuple[Due, Window]]:
        """What can be read, as far as it may share a packet: a recorded stream may change its stem midway."""
        opened: list[tuple[Due, Window]] = []
        for item in due:
            try:
                window = from_record(item.record)
            except (DecodeError, KeyError, TypeError) as error:  # of another version of this program
                _log.error("window %d cannot be read: %s", item.seq, error)
                self._telemetry.count("windows_lost")
                self._outbox.answered(item.seq)
                continue
            if opened and window.stem != opened[0][1].stem:
                break
            opened.append((item, window))
        return opened

    def _packet(self, opened: list[tuple[int, Window]], config: DeviceConfig, choice: Choice, *, live: bool) -> bytes:
        began = time.perf_counter()
        stem_id = opened[0][1].stem or (self._stem_id if config.stage == "embedded" else None)
        packet = FeaturePacket(
            device=self._device,
            epoch=self._outbox.epoch,
            sent_at=time.time(),
            stage="features" if stem_id is None else "embedded",
            stem=stem_id,
            replayed=not live,
            windows=tuple(self._quantised(seq, window, config, choice) for seq, window in opened),
        )
        payload = packet.encode(level=choice.zstd_level)
        generation = (time.perf_counter() - began) / len(opened)
        for seq, window in opened:
            self._flights[seq] = _Flight(window, time.time(), generation + window.extraction, live)
        return payload

    def _quantised(self, seq: int, window: Window, config: DeviceConfig, choice: Choice) -> PacketWindow:
        return to_packet_window(
            window,
            seq,
            stem=self._stem if config.stage == "embedded" else None,
            relative_bound=choice.relative_bound,
            share_label=self.shares_label(window, seq),
            factor=choice.thin,
            noise=self._noise,
            secret=self._secret,
        )

    def _p99(self) -> float:
        ordered = sorted(self._latencies)
        return ordered[int(0.99 * (len(ordered) - 1))] if ordered else 1.0

    def _gauges(self) -> None:
        self._telemetry.gauge("outbox_windows", len(self._outbox))
        for name, count in self._outbox.shed.items():
            self._telemetry.counters[f"windows_shed_{name}"] = count
        for rung in RUNGS:
            self._telemetry.counters[f"packets_coded_{rung}"] = self._compression.counters[rung]
