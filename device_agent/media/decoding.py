"""Packets of one stream decoded into its track; what is damaged is counted and left out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import ThreadType
from av.frame import Frame
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from device_agent.media.chunks import Losses, Picture, Sound
from device_agent.media.clock import AHEAD, TrackClock
from device_agent.media.opening import MAX_PIXELS, THREADS
from device_agent.media.pictures import PictureTrack
from device_agent.media.reading import Reading
from device_agent.media.sound import SoundTrack


class SoundDecoder:
    """Times are seconds after `origin` s of the container; stamps past `limit` s are not believed."""

    def __init__(
        self, stream: AudioStream, origin: float, limit: float | None, reading: Reading, losses: Losses
    ) -> None:
        self._origin = origin
        self._losses = losses
        self._track = SoundTrack(reading, losses, _clock(limit))
        stream.codec_context.thread_count = 1  # sound costs little; threads would only wait for one another

    def push(self, packet: Packet[Stream]) -> list[Sound]:
        sounds: list[Sound] = []
        for frame in _decoded(packet, self._losses, "audio"):
            if isinstance(frame, AudioFrame):
                try:
                    sounds += self._track.push(frame, _stamp(frame, self._origin))
                except (av.error.FFmpegError, ValueError):  # a layout or format that no filter takes
                    self._losses.count("audio_errors")
        return sounds

    def flush(self) -> list[Sound]:
        return self._track.flush()


class PictureDecoder:
    """The same for pictures."""

    def __init__(
        self, stream: VideoStream, origin: float, limit: float | None, reading: Reading, losses: Losses
    ) -> None:
        self._origin = origin
        self._losses = losses
        context = stream.codec_context
        context.thread_count, context.thread_type = THREADS, ThreadType.AUTO
        context.options = {"max_pixels": str(MAX_PIXELS)}
        declared = float(stream.average_rate) if stream.average_rate else None
        aspect = float(stream.sample_aspect_ratio or 1) or 1.0
        self._track = PictureTrack(reading, losses, _clock(limit), declared=declared, aspect=aspect)

    def push(self, packet: Packet[Stream]) -> list[Picture]:
        pictures: list[Picture] = []
        for frame in _decoded(packet, self._losses, "video"):
            if isinstance(frame, VideoFrame):
                try:
                    pictures += self._track.push(frame, _stamp(frame, self._origin))
                except (av.error.FFmpegError, ValueError):  # a pixel format that cannot be converted
                    self._losses.count("video_errors")
        return pictures

    def flush(self) -> list[Picture]:
        return self._track.flush()


def _decoded(packet: Packet[Stream], losses: Losses, kind: str) -> Iterator[Frame]:
    begun = time.perf_counter()
    try:
        frames = packet.decode()
    except av.error.EOFError:  # flushed before
        return
    except av.error.FFmpegError:
        losses.count(f"{kind}_errors")
        return
    finally:
        losses.took(f"decode_{kind}", time.perf_counter() - begun)
    for frame in frames:
        if isinstance(frame, Frame):  # not a subtitle
            if frame.is_corrupt:
                losses.count(f"{kind}_damaged")
            yield frame


def _stamp(frame: Frame, origin: float) -> float | None:
    return None if frame.time is None else float(frame.time) - origin


def _clock(limit: float | None) -> TrackClock:
    """A header may round its duration down."""
    return TrackClock(math.inf if limit is None else limit + 1.0, AHEAD)
