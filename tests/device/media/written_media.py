"""Media files that tests write: signals whose times and contents are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer

TICK = Fraction(1, 1000)  # s, the time base of written pictures


def tone(seconds: float, rate: int, on: float, off: float, *, level: float = 0.5, hertz: float = 440.0) -> np.ndarray:
    """(N,) a tone between `on` and `off` s, faint noise else, in which noise reduction has something to track."""
    times = np.arange(round(seconds * rate)) / rate
    noise = 1e-4 * np.random.default_rng(0).standard_normal(len(times))
    return noise + np.where((times >= on) & (times < off), level * np.sin(2 * np.pi * hertz * times), 0.0)


def write_sound(
    path: Path,
    samples: np.ndarray,
    rate: int,
    *,
    codec: str = "pcm_s16le",
    layout: str = "mono",
) -> Path:
    """(C, N) or (N,) samples in -1..1."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        for ready in [*sound_frames(samples, rate, layout, stream.codec_context.format.name), None]:
            container.mux(stream.encode(ready))
    return path


def sound_frames(
    samples: np.ndarray, rate: int, layout: str, sample_format: str, start: float = 0.0
) -> list[av.AudioFrame]:
    """(C, N) samples from `start` s on, as frames of 1024."""
    samples = np.atleast_2d(samples)
    resampler = av.AudioResampler(format=sample_format, layout=layout, rate=rate, frame_size=1024)
    packed = np.ascontiguousarray(samples.T, dtype=np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, round(start * rate), Fraction(1, rate)
    return [*resampler.resample(frame), *resampler.resample(None)]


def moving(count: int, width: int = 160, height: int = 120) -> list[np.ndarray]:
    """`count` pictures (H, W, 3) whose mean brightness tells which one it is: 10 + 200 k / count."""
    return [np.full((height, width, 3), round(10 + 200 * k / count), np.uint8) for k in range(count)]


def add_pictures(
    container: OutputContainer,
    pictures: Sequence[np.ndarray],
    times: Iterable[float],
    *,
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    **options: Any,
) -> None:
    """Pictures (H, W, 3) RGB shown from `times` s on."""
    height, width = pictures[0].shape[:2]
    stream = container.add_stream(codec, rate=25, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, pixels
    stream.codec_context.time_base = TICK
    for picture, at in zip(pictures, times, strict=True):
        frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixels)
        frame.pts, frame.time_base = round(at / TICK), TICK
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_pictures(path: Path, pictures: Sequence[np.ndarray], times: Iterable[float], **options: Any) -> Path:
    """A film without sound."""
    with av.open(str(path), "w") as container:
        add_pictures(container, pictures, times, **options)
    return path


def write_film(path: Path, seconds: float = 2.0, rate: int = 44_100, *, late: float = 0.0) -> Path:
    """25 pictures a second, and sound that begins at `late` s, with a tone from 0.5 s to 1 s of the film."""
    count = round(25 * seconds)
    samples = tone(seconds, rate, 0.5, 1.0)[round(late * rate) :]
    with av.open(str(path), "w") as container:
        film, voice = (
            container.add_stream("mpeg4", rate=25),
            container.add_stream("libmp3lame", rate=rate, layout="mono"),
        )
        film.width, film.height, film.pix_fmt = 160, 120, "yuv420p"
        pieces = sound_frames(samples, rate, "mono", voice.codec_context.format.name, late)
        for k, picture in enumerate(moving(count)):
            container.mux(film.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")))
            while pieces and float(pieces[0].pts * pieces[0].time_base) <= k / 25:
                container.mux(voice.encode(pieces.pop(0)))
        container.mux(film.encode(None))
        for piece in [*pieces, None]:
            container.mux(voice.encode(piece))
    return path
