"""Sensing on real clips: what a window costs by stage, how much faster than real time, and the process's memory."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.parts import EDGE, TOPICS
from benchmarks.rows import Row
from broker.server import embedded_broker
from broker.settings import EmbeddedSettings
from device_agent.extraction.settings import SenseSettings
from device_agent.media.chunks import Losses
from device_agent.media.files import read_file
from device_agent.sensing.pipeline import Extraction, Pipeline, live_clocks, live_cut, modality_of
from device_agent.sensing.recorded import Recorded, recorded_clips, sense
from device_agent.sensing.specs import Spec
from device_agent.windows import Window, to_packet_window
from megace2_iot.bus import BrokerSettings, connect
from megace2_iot.messages import DeviceConfig
from megace2_iot.service import CHILD, READY_FD
from megace2_iot.stem import Stem

ROUNDS = 5  # of each clip
WINDOW = 4.0  # s
LISTEN = 12.0  # s for which the process senses before its memory is read
STAGES = {
    "read and decode": ("demux", "decode_audio", "decode_video"),
    "filter sound, scale pictures": ("filter", "scale"),
    "text": ("extract_text",),
    "sound": ("extract_audio",),
    "pictures": ("extract_vision",),
    "windows and quality": ("windows",),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """One window, or one clip: s of media, s of work, and s by stage."""

    media: float
    work: float
    stages: dict[str, float]


def measure() -> list[Row]:
    clips, where = _clips()
    extraction = Extraction(SenseSettings())
    whole = [_whole(clip, extraction) for _ in range(ROUNDS) for clip in clips]
    faster = [cost.media / cost.work for cost in whole]
    live = [cost for _ in range(ROUNDS) for clip in clips for cost in _live(clip, extraction)]
    durations = [cost.media for cost in whole]
    rows = [
        Row(
            "faster than real time, whole clips, slowest 5 %",
            float(np.percentile(faster, 5)),
            "x",
            target=20.0,
            side=">=",
            note=f"{len(clips)} clips {where}, {ROUNDS} times; median {np.median(faster):.0f} x",
        ),
        Row(
            "generation of a window, p95",
            1000 * _p95([cost.work for cost in live]),
            "ms",
            target=45.0,
            note=f"last chunk until packet: windows of {WINDOW:g} s cut from clips as they come; "
            f"median {1000 * float(np.median([cost.work for cost in live])):.2f} ms; the paper's 45",
        ),
        Row(
            "all work of a clip's window, median",
            1000 * float(np.median([cost.work for cost in whole])),
            "ms",
            target=45.0,
            note=f"reading, decoding and features of {min(durations):.1f}-{max(durations):.1f} s; "
            f"p95 {1000 * _p95([cost.work for cost in whole]):.0f} ms",
        ),
    ]
    for title, names in STAGES.items():
        spent = [1000 * sum(cost.stages.get(name, 0.0) for name in names) / cost.media for cost in whole]
        rows.append(Row(f"  {title}, p95", _p95(spent), "ms/s", note="of work a s of media"))
    return [*rows, _memory()]


def _p95(values: Sequence[float]) -> float:
    return float(np.percentile(values, 95))


def _clips() -> tuple[list[Recorded], str]:
    """Real clips where they are, else generated ones."""
    data = os.environ.get("MEGACE2_DATA")
    if data and (folder := Path(data) / "clips").is_dir():
        return [opener() for opener in recorded_clips(Spec("clips", str(folder)))], "of the data folder"
    return [opener() for opener in recorded_clips(Spec("synthetic", "9"))], "made here: MEGACE2_DATA is not set"


def _whole(clip: Recorded, extraction: Extraction) -> Cost:
    losses, began = Losses(), time.perf_counter()
    windows = list(sense(clip, extraction, losses))
    work = time.perf_counter() - began
    stages = dict(losses.seconds)
    for window in windows:
        for name, seconds in window.seconds.items():
            stages[name] = stages.get(name, 0.0) + seconds
    return Cost(windows[-1].end, work, stages)


def _live(clip: Recorded, extraction: Extraction) -> list[Cost]:
    """The clip as live tracks: from the chunk that completes a window until its packet is ready, quantised Z[0]."""
    stem = Stem.random(extraction.dims, 40, seed=0)
    given = tuple(m for m in extraction.extractors if m in clip.present and m != "text")
    cut = live_cut(extraction.settings.model_copy(update={"window": WINDOW}), 0.0)
    pipeline = Pipeline(extraction, cut, 1.0, expected=given, clocks=live_clocks((*given, "text")))
    costs = []
    for chunk in clip.read(extraction.reading(), Losses()):
        if modality_of(chunk) not in extraction.extractors:
            continue
        began = time.perf_counter()
        for sensed in pipeline.push(chunk, getattr(chunk, "end", chunk.start)):
            window = Window(features=sensed.features, quality=sensed.quality)
            to_packet_window(window, 1, stem=stem, relative_bound=0.02, share_label=False)
            costs.append(Cost(WINDOW, time.perf_counter() - began, dict(sensed.seconds)))
            began = time.perf_counter()
    began = time.perf_counter()
    for sensed in pipeline.finish():
        window = Window(features=sensed.features, quality=sensed.quality)
        to_packet_window(window, 1, stem=stem, relative_bound=0.02, share_label=False)
        costs.append(Cost(sensed.end - sensed.start, time.perf_counter() - began, dict(sensed.seconds)))
        began = time.perf_counter()
    return costs


# -- memory ---------------------------------------------------------------------------
def _memory() -> Row:
    resident, peak, note = asyncio.run(_sensing())
    return Row(
        "resident while sensing sound and pictures", resident, "MB", target=150.0, note=f"peak {peak:.0f} MB; {note}"
    )


async def _sensing() -> tuple[float, float, str]:
    """MB of a device that senses a film in place of a camera and of a microphone, and its peak."""
    data = os.environ.get("MEGACE2_DATA", "")
    films = sorted(Path(data, "clips").glob("*.mp4")) if data else []
    with tempfile.TemporaryDirectory(prefix="megace2-sensing-") as name:
        film = films[0] if films else _film(Path(name))
        async with embedded_broker(EmbeddedSettings()) as broker, connect(BrokerSettings(url=broker.url), EDGE) as bus:
            config = DeviceConfig(stage="features", relative_bound=0.02, rate=0, train=False, share_labels=False)
            await bus.keep(TOPICS.device_down("cam-01", "config", EDGE), config.encode())
            sources = [f"camera:{film}", f"mic:{film}"]
            device = {"id": "cam-01", "train": False, "sources": sources, "state_dir": str(Path(name) / "state")}
            overrides = {"broker": {"url": broker.url}, "device": device, "replay": {"repeat": True}}
            status = await _run([json.dumps({"overrides": overrides})])
    told = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Vm")}
    return int(told["VmRSS"]) / 1024, int(told["VmHWM"]) / 1024, f"after {LISTEN:g} s of {film.name}"


async def _run(arguments: list[str]) -> str:
    """/proc's status of a device once it has sensed for a while."""
    reader, writer = os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "device_agent", *arguments,
        stdin=asyncio.subprocess.PIPE, pass_fds=(writer,), env={**os.environ, READY_FD: str(writer), CHILD: "1"},
    )  # fmt: skip
    os.close(writer)
    try:
        await asyncio.to_thread(os.read, reader, 16)
        await asyncio.sleep(LISTEN)
        return Path(f"/proc/{process.pid}/status").read_text()
    finally:
        os.close(reader)
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def _film(folder: Path) -> Path:
    """A small film of noise with a tone, where there is no real one."""
    import av

    path = folder / "noise.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        sound = out.add_stream("aac", rate=44_100)
        for _ in range(150):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (480, 640, 3), np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        tone = (0.1 * np.sin(np.arange(44_100 * 5) / 50)).astype(np.float32)[None]
        heard = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        heard.sample_rate = 44_100
        out.mux(sound.encode(heard))
        out.mux([*stream.encode(None), *sound.encode(None)])
    assert list(read_file(path))
    return path
