"""The sender on a real broker: what frees a window, what does not, and which labels may leave."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tiers import corpus, until

from device_agent.outbox import Bounds, Outbox
from device_agent.outbox.keeping import Keeper
from device_agent.sender import Sender
from device_agent.sources import window_of
from megace2_iot.bus import BrokerSettings, connect
from megace2_iot.messages import DeviceConfig, FeaturePacket, GapReceipt, Prediction, Timings
from megace2_iot.topics import Topics

T = Topics(site="test")
CONFIG = DeviceConfig(
    stage="features", relative_bound=0.02, rate=0, train=True, share_labels=True, max_unanswered=4, windows_per_packet=2
)


@contextlib.asynccontextmanager
async def sending(broker: Any, folder: Path, share: float = 0.0) -> AsyncIterator[tuple[Sender, Outbox, list[Any]]]:
    """A sender, its outbox, and the packets that an edge hears."""
    opened = Outbox(folder / "cam.outbox", Bounds(100, 1 << 24, 60.0))
    settings = BrokerSettings(url=broker.url)
    with contextlib.closing(opened) as outbox:
        async with connect(settings, "cam") as bus, connect(settings, "edge-1") as edge:
            heard = await edge.subscribe(T.devices_of("edge-1", "packet"))
            await edge.wait_connected(5)
            keeper = Keeper(outbox, bus.telemetry, 0.01)
            sender, packets = Sender(bus, T, "cam", "edge-1", outbox, keeper, share=share), []

            async def hear() -> None:
                nonlocal packets
                async for delivery in heard:
                    packets += [FeaturePacket.decode(delivery.payload)]

            tasks = [asyncio.create_task(work) for work in (sender.run(), keeper.run(), hear())]
            try:
                yield sender, outbox, packets
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)


def seqs(packets: list[FeaturePacket]) -> list[int]:
    return [window.seq for packet in packets for window in packet.windows]


def answer(outbox: Outbox, seq: int, status: str = "answered", epoch: int | None = None) -> Prediction:
    return Prediction.model_validate(
        {
            "epoch": outbox.epoch if epoch is None else epoch,
            "seq": seq,
            "status": status,
            "score": 1.0,
            "timings": Timings(received_at=1.0, answered_at=1.0),
        }
    )


async def test_nothing_leaves_before_the_configuration(run_embedded, tmp_path):
    """The edge says how; until then windows wait in the outbox."""
    async with run_embedded() as broker, sending(broker, tmp_path) as (sender, outbox, packets):
        sender.accept(window_of(corpus(1)[0]))
        await asyncio.sleep(0.2)
        assert not packets
        sender.configure(CONFIG, None, same_clock=True)
        await until(lambda: packets)
        assert len(outbox) == 1


async def test_so_many_may_be_unanswered(run_embedded, tmp_path):
    """Each answer makes room for one more; a refusal too."""
    async with run_embedded() as broker, sending(broker, tmp_path) as (sender, outbox, packets):
        sender.configure(CONFIG, None, same_clock=True)
        for sample in corpus(6):
            sender.accept(window_of(sample))
        await until(lambda: seqs(packets) == [1, 2, 3, 4])
        sender.answered(answer(outbox, 2))
        sender.answered(answer(outbox, 3, "refused"))
        await until(lambda: sorted(seqs(packets)) == [1, 2, 3, 4, 5, 6])
        assert len(outbox) == 4


async def test_what_does_not_free_a_window(run_embedded, tmp_path):
    """`stem_gone`, another epoch's answer, and the same answer twice."""
    async with run_embedded() as broker, sending(broker, tmp_path) as (sender, outbox, packets):
        sender.configure(CONFIG, None, same_clock=True)
        sender.accept(window_of(corpus(1)[0]))
        await until(lambda: packets)
        sender.answered(answer(outbox, 1, epoch=outbox.epoch + 1))
        sender.answered(answer(outbox, 1, "stem_gone"))
        assert len(outbox) == 1
        sender.configure(CONFIG, None, same_clock=True)
        await until(lambda: seqs(packets) == [1, 1])
        sender.answered(answer(outbox, 1))
        sender.answered(answer(outbox, 1))
        await sender._keeper.until_empty()
        counters = sender._telemetry.counters
        assert (counters["answers_stale"], counters["answers_repeated"], counters["windows_answered"]) == (1, 1, 1)


async def test_everything_unanswered_goes_again(run_embedded, tmp_path):
    """After a reconnect, or a new birth of the edge; as backlog, which is kept out of latency figures."""
    async with run_embedded() as broker, sending(broker, tmp_path) as (sender, _, packets):
        sender.configure(CONFIG, None, same_clock=True)
        for sample in corpus(2):
            sender.accept(window_of(sample))
        await until(lambda: sorted(seqs(packets)) == [1, 2])
        sender.resend_all()
        await until(lambda: sorted(seqs(packets)) == [1, 1, 2, 2])
        assert packets[-1].replayed
        assert sender._telemetry.counters["windows_resent"] == 2


async def test_shared_labels_are_spread_evenly(run_embedded, tmp_path):
    """A fifth of the windows, and of these only the fit half may train here too."""
    async with run_embedded() as broker, sending(broker, tmp_path, share=0.2) as (sender, _, _packets):
        window = window_of(corpus(1)[0])
        assert not any(sender.shares_label(window, seq) for seq in range(1, 11))  # no configuration allows it yet
        sender.configure(CONFIG, None, same_clock=True)
        shared = [seq for seq in range(1, 51) if sender.shares_label(window, seq)]
        assert len(shared) == 10
        assert {b - a for a, b in pairwise(shared)} == {5}
        sender.configure(CONFIG.model_copy(update={"share_labels": False}), None, same_clock=True)
        assert not any(sender.shares_label(window, seq) for seq in range(1, 51))


async def test_a_record_that_cannot_be_read_does_not_stop_the_rest(run_embedded, tmp_path):
    """It is counted as lost, and its neighbours go out."""
    async with run_embedded() as broker, sending(broker, tmp_path) as (sender, outbox, packets):
        outbox.accept(b"of another version of this program", 1e12, 0.0)
        sender.accept(window_of(corpus(1)[0]))
        sender.configure(CONFIG, None, same_clock=True)
        await until(lambda: seqs(packets) == [2])
        await until(lambda: sender._telemetry.counters["windows_lost"] == 1)


async def test_gaps_go_with_windows_or_alone_until_they_are_noted(run_embedded, tmp_path):
    """The edge hears what was shed; of what the device answered itself it hears when it hears anything."""
    async with run_embedded() as broker, sending(broker, tmp_path) as (sender, outbox, packets):
        for how in ("link", "kept"):
            seq = sender.accept(window_of(corpus(1)[0]))
            outbox.free(seq, how)
            outbox.flush()
            sender.configure(CONFIG, None, same_clock=True)
            await until(lambda: packets)
        (alone,) = packets
        assert ([gap.shed for gap in alone.gaps], alone.windows, alone.settled) == ([{"link": 1}], (), 1)
        sender.noted(GapReceipt(epoch=outbox.epoch, gaps=((1, 1),)))
        sender.accept(window_of(corpus(1)[0]))
        await until(lambda: len(packets) == 2)
        assert ([gap.shed for gap in packets[1].gaps], seqs(packets), packets[1].settled) == ([{"kept": 1}], [3], 2)
        sender.noted(GapReceipt(epoch=outbox.epoch + 1, gaps=((2, 2),)))
        assert outbox.gaps == 1


async def test_what_waited_is_marked_and_comes_after_what_is_live(run_embedded, tmp_path):
    """A device that comes back tells the present before the past."""
    async with run_embedded() as broker, sending(broker, tmp_path) as (sender, _, packets):
        window, now = window_of(corpus(1)[0]), time.time()
        for captured_at in (now - 30.0, now - 30.0, now + 60.0):  # the last is live however slow this machine is
            sender.accept(replace(window, captured_at=captured_at))
        sender.configure(CONFIG, None, same_clock=True)
        await until(lambda: len(packets) == 2)
        assert (seqs(packets), [packet.replayed for packet in packets]) == ([3, 1, 2], [False, True])
        assert sender._telemetry.counters["windows_replayed"] == 2
