"""Read a media file as chunks in constant memory, its tracks interleaved as they are stored."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from device_agent.media.chunks import Losses, MediaError, Picture, Sound
from device_agent.media.decoding import PictureDecoder, SoundDecoder
from device_agent.media.opening import no_track, open_media, picture_stream, sound_stream
from device_agent.media.reading import Reading

T = TypeVar("T")

MICROSECONDS = 1e6  # in a second, FFmpeg's clock of whole containers
FAILED_READS = 16  # errors of reading one after another, after which the rest of the file is given up


@dataclass(frozen=True, slots=True)
class Probe:
    """What a file says of itself, without decoding it; None where it does not say or has no such track."""

    duration: float | None  # s
    sound_codec: str | None
    sound_rate: int | None  # Hz
    channels: int | None
    picture_codec: str | None
    picture_rate: float | None  # Hz
    width: int | None  # pixels
    height: int | None

    @property
    def has_sound(self) -> bool:
        return self.sound_codec is not None

    @property
    def has_pictures(self) -> bool:
        return self.picture_codec is not None


def probe(path: str | os.PathLike[str]) -> Probe:
    """Look at a file's header; raises MediaError where nothing in it could be read."""
    with open_media(path) as container:
        sound, pictures = sound_stream(container), picture_stream(container)
        if sound is None and pictures is None:
            raise no_track(path, container)
        return Probe(
            duration=duration_of(container),
            sound_codec=sound.codec_context.name if sound else None,
            sound_rate=sound.codec_context.sample_rate if sound else None,
            channels=sound.codec_context.channels if sound else None,
            picture_codec=pictures.codec_context.name if pictures else None,
            picture_rate=float(pictures.average_rate) if pictures and pictures.average_rate else None,
            width=pictures.codec_context.width if pictures else None,
            height=pictures.codec_context.height if pictures else None,
        )


def read_file(
    path: str | os.PathLike[str], reading: Reading | None = None, losses: Losses | None = None
) -> Iterator[Sound | Picture]:
    """Chunks in time order per track; 0 s is where the earliest track starts. Raises MediaError if nothing is usable.

    What does not decode is counted (`audio_errors`, `video_errors`, `read_errors`) and the rest goes on.
    """
    reading, losses = reading or Reading(), losses if losses is not None else Losses()
    with open_media(path) as container:
        sound = sound_stream(container) if reading.sound else None
        pictures = picture_stream(container) if reading.pictures else None
        if sound is None and pictures is None:
            raise no_track(path, container)
        empty = True
        for chunk in _chunks(container, sound, pictures, reading, losses):
            empty = False
            yield chunk
    if empty:
        raise MediaError(f"nothing in {path} can be decoded: it is damaged or has no length; record it again")


def duration_of(container: InputContainer) -> float | None:
    """Seconds that the container says it lasts."""
    return container.duration / MICROSECONDS if container.duration and container.duration > 0 else None


def _chunks(
    container: InputContainer,
    sound: AudioStream | None,
    pictures: VideoStream | None,
    reading: Reading,
    losses: Losses,
) -> Iterator[Sound | Picture]:
    origin = (container.start_time or 0) / MICROSECONDS
    limit = duration_of(container)
    streams: list[AudioStream | VideoStream] = []
    decoders: dict[int, Callable[[Packet[Stream]], Sequence[Sound | Picture]]] = {}
    flushes: list[Callable[[], Sequence[Sound | Picture]]] = []
    if sound is not None:
        hearing = SoundDecoder(sound, origin, limit, reading, losses)
        decoders[sound.index] = hearing.push
        flushes.append(hearing.flush)
        streams.append(sound)
    if pictures is not None:
        seeing = PictureDecoder(pictures, origin, limit, reading, losses)
        decoders[pictures.index] = seeing.push
        flushes.append(seeing.flush)
        streams.append(pictures)
    for packet in _packets(container, streams, losses):
        yield from decoders[packet.stream.index](packet)  # stream_index is 0 in the last, empty packets of any stream
    for flush in flushes:
        yield from flush()


def _packets(
    container: InputContainer, streams: Sequence[AudioStream | VideoStream], losses: Losses
) -> Iterator[Packet[Stream]]:
    """Packets of these streams; reading goes on behind an error, which would end PyAV's own iterator."""
    failed = 0
    while failed < FAILED_READS:
        try:
            for packet in timed(container.demux(*streams), losses, "demux"):
                failed = 0
                yield packet
            return
        # PyAV has no place for the packets of a stream that damage, or a broadcast, adds in the middle of a file
        except (av.error.FFmpegError, OSError, IndexError):
            losses.count("read_errors")
            failed += 1


def timed(things: Iterator[T], losses: Losses, stage: str) -> Iterator[T]:
    """The same, with the seconds that each took to come."""
    while True:
        begun = time.perf_counter()
        try:
            thing = next(things)
        except StopIteration:
            return
        finally:
            losses.took(stage, time.perf_counter() - begun)
        yield thing
