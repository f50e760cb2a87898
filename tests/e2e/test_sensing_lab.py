"""Sensing through all tiers: the README's lab with files in place of its devices, and sources of all kinds."""

import asyncio
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from sensors import DIMS, cloud_for, sensor
from tiers import command, free_port, process, running, until

from megace2_iot.bus import connect
from megace2_iot.messages import DeviceProfile, FeaturePacket, Prediction
from megace2_iot.topics import Topics

README = Path(__file__).parents[2] / "README.md"
QUIET = {"rounds": False, "adapters": False}


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Three seconds of moving noise and a tone."""
    av = pytest.importorskip("av")
    path, rng = tmp_path_factory.mktemp("film") / "film.mp4", np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        pictures = out.add_stream("mpeg4", rate=15)
        pictures.width, pictures.height, pictures.pix_fmt = 160, 120, "yuv420p"
        sound = out.add_stream("aac", rate=16_000)
        for _ in range(45):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (120, 160, 3), np.uint8), format="rgb24")
            out.mux(pictures.encode(frame))
        tone = (0.1 * np.sin(np.arange(48_000) / 20)).astype(np.float32)[None]
        heard = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        heard.sample_rate = 16_000
        out.mux(sound.encode(heard))
        out.mux([*pictures.encode(None), *sound.encode(None)])
    return path


def lab_commands() -> list[list[str]]:
    """What the README tells to type in four terminals."""
    (block,) = re.findall(r"^## Sensing$.*?^```sh\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line)[1:] for line in block.splitlines()]


async def test_the_lab_of_the_readme(film, tmp_path):
    """Broker, cloud, edge and device as they are typed, a film in place of the camera and of the microphone."""
    broker, cloud, edge, device = lab_commands()
    port = free_port()
    device = [part.replace("/dev/video0", str(film)).replace("mic:default", f"mic:{film}") for part in device]
    where = {"MEGACE2_BROKER__URL": f"mqtt://127.0.0.1:{port}", "MEGACE2_CLOUD__STATE_DIR": str(tmp_path / "cloud")}
    where |= {f"MEGACE2_{tier}__STATE_DIR": str(tmp_path / tier) for tier in ("EDGE", "DEVICE")}
    where |= {"MEGACE2_SENSE__WINDOW": "1.0", "MEGACE2_CLOUD__DURABLE": "false"}
    async with (
        process(*broker, "--port", str(port)),
        process(*cloud, **where),
        process(*edge, **where),
        process(*device, **where) as camera,
        asyncio.timeout(60),
    ):
        assert await camera.wait() == 0, "".join(camera.said)
    answers = [line for line in camera.said if " by edge after " in line]
    assert len(answers) >= 3, "".join(camera.said)
    assert "Traceback" not in "".join(camera.said)


async def test_a_folder_of_clips_is_answered(run_embedded, make_lab, film, tmp_path):
    """Text, sound and film of one name are one clip; a damaged one is left out, and every other has its answer."""
    folder = tmp_path / "clips"
    folder.mkdir()
    os.link(film, folder / "a.mp4")
    (folder / "a.txt").write_text("it was not good")
    (folder / "b.txt").write_text("\u0643\u0627\u0646 \u062c\u064a\u062f\u0627 \U0001f44d")
    (folder / "c.wav").write_bytes(b"RIFF....")
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        async with lab.listening() as ear, running(cloud_for(lab), lab.edge(learning=QUIET)):
            async with asyncio.timeout(30):
                await sensor(lab, f"clips:{folder}")
            await until(lambda: len(ear.of(Prediction)) == 2)
            await until(lambda: ear.figures("cam-1").counters["clips_failed"] == 1)
        windows = [w for packet in ear.of(FeaturePacket) for w in packet.windows]
        assert [set(w.sequences) for w in windows] == [{"text", "audio", "vision"}, {"text"}]
        assert windows[0].quality["audio_speech"] >= 0
        assert dict(ear.of(DeviceProfile)[0].dims) == DIMS


async def test_words_of_a_topic_join_a_camera(run_embedded, make_lab, film):
    """What a speech recogniser publishes falls into the window of its arrival; junk is counted and sensing goes on."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        stream = sensor(lab, f"camera:{film}", "topic:asr/desk")
        async with (
            lab.listening() as ear,
            running(cloud_for(lab), lab.edge(learning=QUIET), stream),
            connect(lab.broker, "asr") as bus,
        ):
            await until(lambda: ear.of(FeaturePacket))
            await bus.publish("asr/desk", b"\xff\xfe broken")
            await bus.publish("asr/desk", b"it was really good")
            await until(lambda: [w for p in ear.of(FeaturePacket) for w in p.windows if "text" in w.sequences])
        assert [w for p in ear.of(FeaturePacket) for w in p.windows if "vision" in w.sequences]


async def test_two_devices_sense_one_scene(run_embedded, make_lab, film):
    """A camera's and a microphone's windows of one second become one sample, on clocks that agree."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        camera = sensor(lab, f"camera:{film}", id="camera", scene="desk")
        microphone = sensor(lab, f"mic:{film}", id="microphone", scene="desk")
        edge = lab.edge(learning=QUIET, scenes={"slot": 1.0, "deadline": 5.0})
        async with lab.listening() as ear, running(cloud_for(lab), edge, camera, microphone):
            await until(lambda: [p for p in ear.of(Prediction, "camera") if len(p.scene) == 2])
            await until(lambda: [p for p in ear.of(Prediction, "microphone") if len(p.scene) == 2])


async def test_a_cloud_of_another_model_is_told(make_lab):
    """Asked for other widths than its store has, it ends and says so, rather than ignore them."""
    lab = make_lab("mqtt://127.0.0.1:1")
    status, printed = await command("cloud", "--dims", "text=300", "--config", str(lab.settings_file()))
    assert status == 1
    assert "choose another state_dir" in printed
    status, printed = await command("cloud", "--dims", "words=300")
    assert status == 2
    assert "text=300,audio=74,vision=35" in re.sub(r"[\s\u2502]+", "", printed)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--source", "camra"), "did you mean 'camera'"),
        (("--source", "clips:x", "--source", "mic"), "plays whole clips"),
        (("--source", "file:README.md"), "is not a media file"),
        (("--source", "mic", "--answers", "nobody"), "[device] answers"),
        (("--source", "clips:/nowhere"), "there is no folder /nowhere"),
    ],
)
async def test_a_wrong_argument_is_one_line(arguments, says):
    """It says what to type instead, and ends with 1."""
    status, printed = await command("device", *arguments)
    assert status == 1
    assert says in printed
    assert "Traceback" not in printed


def test_topics_of_words_are_anybodys():
    """A text topic needs not lie below the site's."""
    with pytest.raises(ValueError, match="is no topic"):
        Topics(site="test").parse("asr/desk")
