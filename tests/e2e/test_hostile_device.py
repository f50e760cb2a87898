"""A hostile device in a synchronous round: refused with the reason, and the round closes with the honest ones."""

from __future__ import annotations

import numpy as np
import pytest
from tiers import LEARNING, running, until

from megace2_iot.bus import connect
from megace2_iot.deltas import encode_delta
from megace2_iot.messages import (
    DeviceConfig,
    DeviceProfile,
    Hardware,
    ModelPointer,
    RoundStart,
    State,
    UpdateOffer,
    Verdict,
)
from megace2_iot.offers import make_offer
from megace2_iot.parameters import Layout
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
