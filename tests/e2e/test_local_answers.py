"""The answer on the spot: an edge distils a local model, devices answer with it, and the edge corrects."""

import asyncio
import shutil

import pytest
from tiers import command, corpus, played, running, until

from cloud_aggregator.store import Store
from edge_gateway.store import EdgeStore
from megace2_iot.blobs import digest
from megace2_iot.messages import DeviceConfig, FeaturePacket, LocalModel, Prediction
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig
from megace2_iot.model.pocket import Likeness, graph_of, pocket, release_of

QUIET = {"rounds": False, "adapters": False}
SOON = {"min_windows": 16, "every": 0.0, "training": {"epochs": 2}}


async def test_a_local_model_is_distilled_released_and_answers(run_embedded, make_lab):
    """First answers come from the device without torch's model, the edge's follow, and both are compared."""
    answers = []
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        edge = lab.edge(learning=QUIET, scheduling={"answers": "local_then_edge"}, distillation=SOON)
        device = lab.device(listener=answers.append)
        go_on = asyncio.Event()

        async def stream():
            async for window in played(corpus(24)):
                yield window
            await go_on.wait()
            async for window in played(corpus(12)):
                yield window

        async with lab.listening() as ear, running(lab.cloud(), edge, device.run(stream(), stay=True)):
            await until(lambda: device.telemetry.counters["local_models_opened"], 60)
            go_on.set()
            await until(lambda: sum(answer.tier == "edge" for answer in answers) == 36)
            (released, *_) = ear.of(LocalModel)
        assert {config.answers for config in ear.of(DeviceConfig)} == {"local_then_edge"}
        assert released.agreement >= 0
        first = [answer for answer in answers if answer.tier == "device"]
        later = {answer.seq: answer for answer in answers if answer.tier == "edge"}
        assert first
        assert not any(answer.final for answer in first)
        for answer in first:
            assert later[answer.seq].corrects == (later[answer.seq].label != answer.label)
        compared = device.telemetry.counters["answers_agreed"] + device.telemetry.counters["answers_corrected"]
        assert compared == len(first)
        assert len({prediction.seq for prediction in ear.of(Prediction)}) == 36


@pytest.fixture(scope="module")
def kept(release_1, tmp_path_factory):
    """An edge's folder that holds a local model of the last run, above the stem of release 1."""
    folder = tmp_path_factory.mktemp("edges") / "edge-1"
    with Store.open(release_1) as store:
        family = store.family()
    model = CrossModalTransformer.seeded(pocket(ModelConfig.from_json(family.config)), 1)
    blob = release_of(model, graph_of(model), Likeness(0.9, 0.1, 10), (1.0, 0.0))
    pointer = LocalModel(
        family=model.family,
        config=model.config.to_json(),
        version=3,
        sha256=digest(blob),
        size=len(blob),
        stem=family.stem,
        stem_size=1,
        teacher=1,
        agreement=0.9,
    )
    EdgeStore(folder).keep_local(pointer, blob)
    return folder


@pytest.mark.parametrize(
    ("policy", "floor", "sent"), [("confident_local", 0.0, 0), ("confident_local", 1.0, 8), ("local", 1.0, 0)]
)
async def test_only_hard_windows_go_up(run_embedded, make_lab, kept, policy, floor, sent):
    """A local answer that is sure enough stays, by `local` every one; others go up. The last run's model serves."""
    answers = []
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        shutil.copytree(kept, lab.folder / "edges" / "edge-1")
        scheduling = {"answers": policy, "confidence_floor": floor, "audit": 0.0}
        edge, device = lab.edge(learning=QUIET, scheduling=scheduling), lab.device(listener=answers.append)

        async def stream():
            await until(lambda: device.telemetry.counters["local_models_opened"])
            async for window in played(corpus(8)):
                yield window

        async with lab.listening() as ear, running(lab.cloud(), edge):
            await device.run(stream())
            await until(lambda: sum(len(packet.windows) for packet in ear.of(FeaturePacket)) >= sent)
        assert sum(len(packet.windows) for packet in ear.of(FeaturePacket)) == sent
        assert device.telemetry.counters["windows_kept"] == 8 - sent
        assert len({answer.seq for answer in answers if answer.final}) == 8
        assert all(answer.version == 3 for answer in answers if answer.tier == "device")


async def test_who_insists_on_local_answers_without_a_runtime_is_told(make_lab):
    """It exits with 1 and names what to install."""
    lab = make_lab("mqtt://127.0.0.1:1")
    shims = lab.folder / "shims"
    shims.mkdir()
    hide = "import importlib.util as u\nfind = u.find_spec\n"
    hide += "u.find_spec = lambda n, *a: None if n in ('torch', 'onnxruntime') else find(n, *a)\n"
    (shims / "sitecustomize.py").write_text(hide)
    settings = lab.settings_file()
    status, printed = await command(
        "device", "--config", str(settings), PYTHONPATH=str(shims), MEGACE2_DEVICE__ANSWERS="local"
    )
    assert status == 1
    assert "pip install 'megace2-iot[sense]'" in printed
