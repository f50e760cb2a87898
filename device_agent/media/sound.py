"""A track of decoded sound frames as pieces of clean mono sound, each at its true time."""

from __future__ import annotations

import time
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame

from device_agent.media.chunks import Losses, Sound
from device_agent.media.cleaning import CleaningChain, Samples, Signature, signature
from device_agent.media.clock import TrackClock
from device_agent.media.reading import Reading

TOLERANCE = 0.1  # s between stamp and sample count: containers round stamps, and live ones jitter
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz; others are broken headers, and 1 Hz would make hours of a second
FULL_SCALE = 0.9999  # of the largest number
# The same of whole numbers; 24 bits in 32 never reach all of it.
WHOLE_LIMITS = {"uint8": (0, 255), "int16": (-32767, 32767), "int32": (-0x7FFF0000, 0x7FFF0000)}
# PyAV 18.1 looks for the end of a frame's planes behind the last of eight, takes what lies there for a ninth and dies.
UNSAFE_PLANES = 8
LOUDEST = 8.0  # of full scale that a float sample may have; more is garbage that would poison the filters


Raw = npt.NDArray[Any]  # samples of any type that PyAV gives


class SoundTrack:
    """Time is counted in samples from the start of an unbroken run; a gap of stamps starts a new run.

    Frames that overlap what was already there are dropped (`audio_overlaps`), gaps are kept as gaps (`audio_gaps`).
    """

    def __init__(self, reading: Reading, losses: Losses, clock: TrackClock | None = None) -> None:
        self._reading = reading
        self._losses = losses
        self._clock = clock or TrackClock()
        self._chain: CleaningChain | None = None
        self._start = 0.0  # s of the run's first sample
        self._end = 0.0  # s up to which the run has been taken
        self._out = 0  # samples of the run that came out
        self._packer: tuple[Signature, av.AudioResampler] | None = None
        self._full, self._seen = 0, 0  # samples at full scale, of all since the last piece

    def push(self, frame: AudioFrame, stamp: float | None) -> list[Sound]:
        """Pieces that this frame, stamped `stamp` s, completes."""
        if frame.samples == 0:
            return []
        if not LOWEST_RATE <= frame.sample_rate <= HIGHEST_RATE:
            self._losses.count("audio_errors")
            return []
        begun = time.perf_counter()
        if frame.format.is_planar and frame.layout.nb_channels >= UNSAFE_PLANES:
            frame = self._packed(frame)
        sounds = self._push(frame, stamp)
        self._losses.took("filter", time.perf_counter() - begun)
        return sounds

    def flush(self) -> list[Sound]:
        """What the filters still hold; the next frame starts a new run."""
        if self._chain is None:
            return []
        chain, self._chain = self._chain, None
        return self._sounds(chain.finish())

    def _push(self, frame: AudioFrame, stamp: float | None) -> list[Sound]:
        doubts = self._clock.doubts
        start = self._clock.time(stamp, self._end)
        if self._clock.doubts > doubts:
            self._losses.count("audio_doubts")
        before: list[Sound] = []
        if self._chain is None:
            start = max(start, self._end)
        elif start > self._end + TOLERANCE:
            self._losses.count("audio_gaps")
            before = self.flush()
        elif start < self._end - TOLERANCE:
            self._losses.count("audio_overlaps")
            return []
        elif self._chain.made_for != signature(frame):
            before, start = self.flush(), self._end
        if self._chain is None:
            self._begin(frame, start)
        return before + self._taken(frame)

    def _begin(self, frame: AudioFrame, start: float) -> None:
        self._chain = CleaningChain(signature(frame), self._reading)
        self._start = self._end = start
        self._out = 0

    def _taken(self, frame: AudioFrame) -> list[Sound]:
        assert self._chain is not None
        pieces = self._chain.push(self._measured(frame))
        self._end = self._start + self._chain.length
        return self._sounds(pieces)

    def _measured(self, frame: AudioFrame) -> AudioFrame:
        """Count what is at full scale; a frame of floats without its garbage."""
        samples: Raw = frame.to_ndarray()
        if samples.dtype.kind == "f":
            usable = np.abs(samples) <= LOUDEST  # False for NaN
            if not usable.all():
                self._losses.count("audio_garbage", int(usable.size - usable.sum()))
                samples = np.where(usable, samples, samples.dtype.type(0))
                frame = _like(frame, samples)
            high, low = FULL_SCALE, -FULL_SCALE
        else:
            low, high = WHOLE_LIMITS[samples.dtype.name]
        self._full += int(((samples >= high) | (samples <= low)).sum())
        self._seen += samples.size
        return frame

    def _packed(self, frame: AudioFrame) -> AudioFrame:
        """The same samples in one plane."""
        if self._packer is None or self._packer[0] != signature(frame):
            layout, rate = frame.layout.name, frame.sample_rate
            self._packer = signature(frame), av.AudioResampler(format="flt", layout=layout, rate=rate)
        [packed] = self._packer[1].resample(frame)
        return packed

    def _sounds(self, pieces: list[Samples]) -> list[Sound]:
        """Pieces with their times; what was clipped since the last one goes to the first."""
        sounds: list[Sound] = []
        for samples in pieces:
            clipped = self._full / self._seen if self._seen else 0.0
            self._full, self._seen = 0, 0
            rate = self._reading.sound_rate
            sounds.append(Sound(samples, rate, self._start + self._out / rate, clipped))
            self._out += len(samples)
        return sounds


def _like(frame: AudioFrame, samples: Raw) -> AudioFrame:
    """A frame of the same kind with other samples."""
    other = av.AudioFrame.from_ndarray(samples, format=frame.format.name, layout=frame.layout.name)
    other.sample_rate = frame.sample_rate
    return other
