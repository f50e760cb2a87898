"""A hostile device: in a round, and one that speaks as another, on a broker that lets anybody in and in a site."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from absent import skip_or_fail
from tiers import LEARNING, SITE, Ear, Lab, corpus, played, running, until

from broker.mosquitto_process import find_mosquitto
from device_agent.windows import Window
from megace2_iot.bus import Refused, connect
from megace2_iot.deltas import encode_delta
from megace2_iot.messages import (
    DeviceConfig,
    DeviceProfile,
    FeaturePacket,
    Gap,
    Hardware,
    Message,
    ModelPointer,
    PacketWindow,
    Prediction,
    RoundStart,
    State,
    UpdateOffer,
    Verdict,
)
from megace2_iot.offers import make_offer
from megace2_iot.parameters import Layout
from megace2_iot.quantize import quantize
from megace2_iot.tensors import decode_tensors

PROFILE = DeviceProfile(
    dims={"text": 24, "audio": 12, "vision": 10}, can_train=True, hardware=Hardware(memory=1 << 30)
)  # fmt: skip
BAD = {
    "NaN": (np.nan, 10.0, "schema: an int8 delta with an impossible scale"),
    "a huge norm": (1e6, 10.0, "norm: "),
    "a thousand million examples": (1e-3, 1e9, "examples: 1000000000 behind "),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_device_does_not_spoil_its_round(run_embedded, make_lab, name):
    """Its edge says why, counts it, and offers the cloud the mean of the others."""
    value, count, reason = BAD[name]
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        layout = layout_of(lab)
        async with running(lab.cloud(), lab.edge(learning={**LEARNING, "adapters": False})), lab.listening() as ear:
            async with connect(lab.broker, "good") as good, connect(lab.broker, "bad") as bad:
                for id, bus in (("good", good), ("bad", bad)):
                    await introduce(lab, ear, id, bus)
                opened = lambda: [r for r in ear.of(RoundStart) if set(r.participants) == {"good", "bad"}]  # noqa: E731
                await until(opened)
                for id, bus, scale, n in (("bad", bad, value, count), ("good", good, 1e-3, 10.0)):
                    offer = trained(id, opened()[-1], layout, scale, n)
                    await bus.publish(lab.topics.device_up(id, "update", "edge-1"), offer.encode())
                    await until(lambda id=id: ear.of(Verdict, id))
                await until(lambda: ear.of(UpdateOffer, "edge-1"))
                await until(lambda: ear.figures("edge-1").counters["updates_refused"] == 1)
            (refused,), (accepted,) = ear.of(Verdict, "bad"), ear.of(Verdict, "good")
            assert (refused.accepted, refused.reason[: len(reason)], accepted.accepted) == (False, reason, True)
            assert set(ear.of(UpdateOffer, "edge-1")[0].num_examples.values()) == {10.0}


def layout_of(lab) -> Layout:
    blob = max((lab.folder / "cloud" / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    return Layout.of(decode_tensors(blob.read_bytes())[0])


async def introduce(lab, ear, id, bus) -> None:
    """Be online as a device that can train, until the edge has configured it so."""
    await until(lambda: ear.of(ModelPointer, "edge-1"))
    await bus.keep(lab.topics.device_up(id, "profile", "edge-1"), PROFILE.encode())
    online = State(state="online", session=1, role="device")
    await bus.keep(lab.topics.device_up(id, "state", "edge-1"), online.encode())
    await until(lambda: ear.of(DeviceConfig, id))


def trained(id: str, start: RoundStart, layout: Layout, scale: float, count: float) -> UpdateOffer:
    """A delta over the round's base, of all groups."""
    delta = np.random.default_rng(1).normal(size=layout.size).astype(np.float32)
    body = encode_delta(delta * np.float32(scale if np.isfinite(scale) else 1), "int8")[0]
    if not np.isfinite(scale):
        body = body[:12] + np.float32(scale).tobytes() + body[16:]  # the scale of the first block
    counts = dict.fromkeys(layout.groups, count)
    return make_offer(id, start.family, start.base_version, start.round, counts, "int8", body)


# -- as another, on an open broker ----------------------------------------------------
QUIET = {"rounds": False, "adapters": False}
HUGE = 2**53


def forged(epoch: int, seq: int = 1, device: str = "cam-1", **more: Any) -> FeaturePacket:
    values = np.ones((5, 24), np.float32) * np.arange(5, dtype=np.float32)[:, None]
    window = PacketWindow(seq=seq, captured_at=0.0, sequences={"text": quantize(values, 0.02).to_fields()})
    fields = {"device": device, "epoch": epoch, "sent_at": 0.0, "stage": "features", "windows": (window,), **more}
    return FeaturePacket.model_validate(fields)


ATTACKS: dict[str, Callable[[int], Message]] = {  # of the device's own epoch
    "a huge epoch": lambda epoch: forged(HUGE),
    "two huge epochs": lambda epoch: forged(HUGE - 1),
    "a huge seq": lambda epoch: forged(epoch, HUGE),
    "all is settled": lambda epoch: forged(epoch, HUGE, settled=HUGE),
    "all was shed": lambda epoch: forged(epoch, windows=(), gaps=(Gap(first=1, last=HUGE, shed={"full": 1}),)),
    "a huge session": lambda epoch: State(state="offline", session=HUGE, role="device"),
}


@pytest.mark.parametrize("restarted", [False, True], ids=["", "and a restart of the edge"])
@pytest.mark.parametrize("attack", ATTACKS)
async def test_nobody_is_shut_out_by_what_is_said_in_its_name(run_embedded, make_lab, attack, restarted):
    """Whatever a stranger says as cam-1: the next windows of the device are inferred and answered."""
    async with run_embedded() as broker:
        lab, go_on = make_lab(broker.url), asyncio.Event()
        device = lab.device()

        async def stream() -> AsyncIterator[Window]:
            async for window in played(corpus(4)):
                yield window
            await go_on.wait()
            async for window in played(corpus(24)):
                yield window

        answered = lambda: device.telemetry.counters["windows_answered"]  # noqa: E731
        async with lab.listening() as ear, running(lab.cloud()), contextlib.AsyncExitStack() as edge:
            await edge.enter_async_context(running(lab.edge(learning=QUIET)))
            async with running(device.run(stream(), stay=True)):
                await until(lambda: answered() == len(corpus(4)))
                await attacked(ear, ear.of(FeaturePacket, "cam-1")[0].epoch, attack)
                if restarted:
                    await edge.aclose()
                    await edge.enter_async_context(running(lab.edge(learning=QUIET)))
                go_on.set()
                await until(lambda: answered() == len(corpus(4)) + len(corpus(24)))
                assert device.telemetry.counters["windows_refused"] == 0
        fresh = [p for p in ear.of(Prediction, "cam-1") if p.status == "answered"]
        assert len({(p.epoch, p.seq) for p in fresh if p.epoch < HUGE - 1 and p.seq < HUGE}) == answered()


async def attacked(ear: Ear, epoch: int, attack: str) -> None:
    """Say it, and wait until the edge has heard it."""
    message = ATTACKS[attack](epoch)
    before = ear.figures("edge-1").counters["packets_received"]
    if attack == "two huge epochs":
        await ear.bus.publish(SITE.device_up("cam-1", "packet", "edge-1"), forged(HUGE).encode())
    await ear.bus.publish(SITE.device_up("cam-1", message.kind, "edge-1"), message.encode())
    if message.kind == "packet":
        await until(lambda: ear.figures("edge-1").counters["packets_received"] > before + (attack == "two huge epochs"))
    else:
        await until(lambda: facts(ear).get("devices") == 0)


def facts(ear: Ear) -> dict[str, Any]:
    told = [message for at, message in ear.heard if at.kind == "health" and at.node == "edge-1"]
    return dict(told[-1].facts) if told else {}  # type: ignore[attr-defined]


async def test_a_device_that_was_called_gone_is_back_at_its_next_connect(run_embedded, make_lab):
    """A forged will of a huge session does not outlast the device's own next word."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        async with lab.listening() as ear, running(lab.cloud(), lab.edge(learning=QUIET)):
            for _ in range(2):
                async with running(lab.device().run(played(corpus(4)), stay=True)):
                    await until(lambda: facts(ear).get("devices") == 1)
                    gone = State(state="offline", session=HUGE, role="device")
                    await ear.bus.publish(SITE.device_up("cam-1", "state", "edge-1"), gone.encode(), retain=True)
                    await until(lambda: facts(ear).get("devices") == 0)


async def test_captured_packets_are_not_inferred_twice(run_broker, make_lab):
    """Whoever plays a device's packets again gets its answers again: no window is new, after a restart either."""
    async with run_broker() as broker:
        lab = make_lab(broker.url)
        async with lab.listening() as ear, running(lab.cloud()):
            async with running(lab.edge(learning=QUIET)):
                await lab.device().run(played(corpus(24)))
                await replayed(ear)
                heard = len(ear.heard)
            async with running(lab.edge(learning=QUIET)):
                await until(lambda: any(type(message) is ModelPointer for _, message in ear.heard[heard:]))
                await replayed(ear)


async def replayed(ear: Ear) -> None:
    captured = [packet for packet in ear.of(FeaturePacket, "cam-1") if packet.windows][: len(corpus(24))]
    heard = len(ear.heard)
    for packet in captured:
        await ear.bus.publish(SITE.device_up("cam-1", "packet", "edge-1"), packet.encode())
    again = {(packet.epoch, window.seq) for packet in captured for window in packet.windows}
    answers = lambda: {(p.epoch, p.seq) for _, p in ear.heard[heard:] if isinstance(p, Prediction)}  # noqa: E731
    await until(lambda: answers() == again)
    assert ear.figures("edge-1").counters["inferred_again"] == 0
    first = {(p.epoch, p.seq): p.timings.answered_at for _, p in reversed(ear.heard) if isinstance(p, Prediction)}
    assert all(p.timings.answered_at == first[p.epoch, p.seq] for p in ear.of(Prediction, "cam-1"))


# -- as another, in an enrolled site --------------------------------------------------
@pytest.mark.parametrize("by", ["mosquitto", "embedded"])
async def test_in_a_site_a_device_speaks_for_itself_alone(make_lab, tmp_path, by):
    """With a certificate of its own, of all that would make it cam-01, its edge or the cloud it may say nothing."""
    pytest.importorskip("cryptography", reason="a site needs the extra `secure`")
    from sites import enroll_all, make_site, served

    from broker.lab.registry import Enrolled

    if by == "mosquitto" and find_mosquitto() is None:
        skip_or_fail("mosquitto is not installed (apt install mosquitto)")
    site, out = make_site(tmp_path), tmp_path / "out"
    enroll_all(site, out)
    site.enroll(Enrolled(id="ear", role="operator"), out)
    lab = replace(make_lab(site.config.url), topics=site.config.topics(), identities=out)
    async with served(site, by), running(lab.cloud(), lab.edge(learning=QUIET)), lab.listening() as ear:
        async with connect(lab.broker, "cam-02") as mallory:
            await mallory.wait_connected(10)
            for topic, payload in as_another(lab).items():
                with pytest.raises(Refused):
                    await mallory.publish(topic, payload, retain=topic.endswith("model"))
            await mallory.publish(
                lab.topics.device_up("cam-02", "packet", "edge-1"), forged(1, device="cam-01").encode()
            )
            await until(lambda: ear.figures("edge-1").counters["packets_rejected"] == 1)
        await lab.device("cam-01").run(played(corpus(6)))
        answers = ear.of(Prediction, "cam-01")
        assert {(p.status, p.seq) for p in answers} == {("answered", 1 + number) for number in range(len(corpus(6)))}


def as_another(lab: Lab) -> dict[str, bytes]:
    topics, offline = lab.topics, State(state="offline", session=HUGE, role="device").encode()
    answer = Prediction(epoch=1, seq=1, status="refused", reason="forged").encode()
    return {
        topics.device_up("cam-01", "packet", "edge-1"): forged(HUGE, device="cam-01").encode(),
        **{topics.device_up("cam-01", kind, "edge-1"): offline for kind in ("state", "profile", "update", "feedback")},
        **{topics.device_down("cam-01", kind, "edge-1"): answer for kind in ("prediction", "config", "refusal")},
        **{topics.device_down("cam-02", kind, "edge-1"): answer for kind in ("prediction", "config")},
        **{topics.edge_all("edge-1", kind): offline for kind in ("state", "round", "model")},
        **{topics.cloud_all(kind): offline for kind in ("state", "model")},
        topics.update("edge-1"): offline,
    }
