"""The whole loop on real brokers: devices, edges and a cloud that learn and answer together."""

import asyncio
from collections import Counter

from tiers import corpus, free_port, played, running, until

from device_agent.learning import Learner
from megace2_iot.blobs import digest
from megace2_iot.messages import (
    BlobChunk,
    DeviceConfig,
    DeviceProfile,
    FeaturePacket,
    ModelPointer,
    Prediction,
    RoundStart,
    UpdateOffer,
    Verdict,
)
from megace2_iot.tensors import decode_tensors


async def test_the_loop_learns_and_answers(run_broker, make_lab):
    """Two edges with a device each, from registration to the release that folds both edges in."""
    async with run_broker() as broker, Learner() as learner:
        lab = make_lab(broker.url)
        devices = [lab.device(f"cam-{n}", f"edge-{n}", learner, share_labels=0.7) for n in (1, 2)]
        streams = [device.run(played(corpus(60, site=n)), stay=True) for n, device in enumerate(devices)]
        edges = [lab.edge(f"edge-{n}", scheduling={"share_labels": True}) for n in (1, 2)]
        async with lab.listening() as ear, running(lab.cloud(), *edges, *streams):
            folded = lambda: {edge for pointer in ear.of(ModelPointer, "cloud") for edge in pointer.folded}  # noqa: E731
            await until(lambda: folded() == {"edge-1", "edge-2"}, 60)
            newest = ear.of(ModelPointer, "cloud")[-1].version
            for edge in ("edge-1", "edge-2"):
                await until(lambda edge=edge: ear.of(ModelPointer, edge)[-1].version >= newest)
            await until(lambda: all(len(ear.of(Prediction, d)) >= 60 for d in ("cam-1", "cam-2")))
            await until(lambda: len(list(lab.folder.glob("edges/*/adapter.safetensors"))) == 2)
        check_answers(ear, devices)
        check_rounds(ear)
        check_no_adapter(ear, lab.folder)


def check_answers(ear, devices):
    """Every window was answered, and answered once."""
    for device in devices:
        id = device.settings.id
        assert ear.of(DeviceProfile, id)[0].dims == {"text": 24, "audio": 12, "vision": 10}
        assert ear.of(DeviceConfig, id)[0].stage in ("embedded", "features")
        answers = Counter(p.seq for p in ear.of(Prediction, id) if p.status == "answered")
        sent = [w.seq for packet in ear.of(FeaturePacket, id) for w in packet.windows]
        assert set(answers) == set(sent)
        assert len(answers) == 60
        assert device.telemetry.counters["windows_answered"] == 60
        assert device.telemetry.counters["windows_accepted"] == 60


def check_rounds(ear):
    """Rounds are heard by devices, updates get verdicts, releases rise."""
    assert {p for start in ear.of(RoundStart) for p in start.participants} == {"cam-1", "cam-2"}
    versions = [pointer.version for pointer in ear.of(ModelPointer, "cloud")]
    assert versions == sorted(versions)
    assert versions[-1] > 1
    offers = {offer.id for offer in ear.of(UpdateOffer, "edge-1")}
    assert any(v.accepted and v.version for v in ear.of(Verdict, "edge-1") if v.id in offers)
    assert ear.of(Verdict, "cam-1")[0].accepted
    assert not ear.garbage


def check_no_adapter(ear, folder):
    """Adapters never leave the edge: no name and no weight of theirs is in anything that was published."""
    chunks: dict[str, dict[int, bytes]] = {}
    for chunk in ear.of(BlobChunk):
        chunks.setdefault(chunk.sha256, {})[chunk.index] = chunk.data
    pulled = {sha: b"".join(parts[index] for index in sorted(parts)) for sha, parts in chunks.items()}
    models = [model for sha, model in pulled.items() if digest(model) == sha]  # not those still on their way
    named = {name for model in models for name in decode_tensors(model)[0]}
    groups = {group for offer in ear.of(UpdateOffer) for group in offer.num_examples}
    adapters = [decode_tensors(path.read_bytes())[0] for path in folder.glob("edges/*/adapter.safetensors")]
    assert named
    assert adapters, "none was trained: nothing was checked"
    assert not [name for name in named | groups if "adapter" in name]
    for adapter in adapters:
        assert named.isdisjoint(adapter)
        some = [tensor.tobytes()[:64] for tensor in adapter.values() if tensor.any()]
        assert not [part for part in some for payload in [*ear.payloads, *models] if part in payload]


async def test_tiers_may_start_in_any_order(run_embedded, make_lab):
    """Device first, then edge, then cloud, and the broker last."""
    port = free_port()
    lab = make_lab(f"mqtt://127.0.0.1:{port}")
    device = lab.device()
    stream = asyncio.create_task(device.run(played(corpus(8))), name="device")
    await asyncio.sleep(0.2)
    async with running(lab.edge(learning={"rounds": False})):
        await asyncio.sleep(0.2)
        async with running(lab.cloud()):
            await asyncio.sleep(0.2)
            async with run_embedded(port=port), asyncio.timeout(60):
                await stream
    assert device.telemetry.counters["windows_answered"] == 8
