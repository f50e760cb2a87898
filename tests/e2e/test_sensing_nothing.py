"""What is of no use: a film of black pictures and silence is masked, and the agent says so and goes on."""

import numpy as np
import pytest
from sensors import cloud_for, sensor
from tiers import running, until

from megace2_iot.messages import FeaturePacket, Prediction


@pytest.fixture(scope="module")
def nothing(tmp_path_factory):
    """Two seconds of it."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("nothing") / "nothing.mp4"
    with av.open(str(path), "w") as out:
        pictures, sound = out.add_stream("mpeg4", rate=15), out.add_stream("aac", rate=16_000)
        pictures.width, pictures.height, pictures.pix_fmt = 160, 120, "yuv420p"
        for _ in range(30):
            black = av.VideoFrame.from_ndarray(np.zeros((120, 160, 3), np.uint8), format="rgb24")
            out.mux(pictures.encode(black))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 32_000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16_000
        out.mux(sound.encode(silence))
        out.mux([*pictures.encode(None), *sound.encode(None)])
    path.with_suffix(".txt").write_text("it was really good")
    return path


async def test_silence_and_black_pictures_are_masked(run_embedded, make_lab, nothing):
    """The words are answered alone; both reasons are in the answer, and the quality in packet and telemetry."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        edge = lab.edge(learning={"rounds": False, "adapters": False})
        async with lab.listening() as ear, running(cloud_for(lab), edge):
            await sensor(lab, f"file:{nothing}")
            await until(lambda: ear.of(Prediction))
            await until(lambda: "vision_exposure" in ear.figures("cam-1").gauges)
        (prediction,) = ear.of(Prediction)
        (window,) = (w for packet in ear.of(FeaturePacket) for w in packet.windows)
        assert prediction.status == "answered"
        assert set(prediction.masked) == {"audio", "vision"}
        assert "audio_level" in prediction.reason
        assert "vision_exposure" in prediction.reason
        assert window.quality["vision_exposure"] < 0.02
        assert window.quality["audio_level"] < -75
