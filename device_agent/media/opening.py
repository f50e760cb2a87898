"""Open a media file with FFmpeg, or say what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from device_agent.media.chunks import MediaError

# FFmpeg reads far more, among it playlists that name other files and addresses, and text as pictures of a terminal.
FORMATS = (
    "wav,w64,rf64,flac,mp3,ogg,aac,ac3,eac3,aiff,au,caf,amr,asf,mov,mp4,m4a,3gp,matroska,webm,avi,flv,mpeg,mpegts,"
    "mpegvideo,m4v,h264,hevc,mjpeg,ivf,dv,nut,yuv4mpegpipe,rm,wtv,mxf,ape,wv,tta,gif"
)
THREADS = 2  # of the video decoder: a Raspberry Pi has four cores, a small computer two
MAX_PIXELS = 64 << 20  # in a frame; more is a broken header and would take gigabytes


@contextmanager
def open_media(path: str | os.PathLike[str]) -> Iterator[InputContainer]:
    """The container; raises MediaError."""
    path = Path(path)
    _check(path)
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        # file: keeps a name such as "a:b.mp4" from being taken for an address
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(
            f"{path} is not a media file that can be read, or its beginning or index is missing, as in a recording "
            f"that was cut off ({_reason(error)}): convert it (ffmpeg -i {path.name} new.mkv) or record it again"
        ) from None
    with container:
        yield container


def sound_stream(container: InputContainer) -> AudioStream | None:
    """The sound to read, or None; a zero-length track is a missing one."""
    for stream in container.streams.audio:
        if _usable(stream):
            return stream
    return None


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The pictures to read, or None; the cover of an album is not one."""
    for stream in container.streams.video:
        if _usable(stream) and not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def no_track(path: str | os.PathLike[str], container: InputContainer) -> MediaError:
    """Why nothing of this file can be used."""
    streams = [*container.streams.audio, *container.streams.video]
    if any(stream.codec_context is None for stream in streams):
        return MediaError(
            f"{path}: FFmpeg has no decoder for what it holds: convert it (ffmpeg -i {Path(path).name} -c:v libx264 "
            "-c:a aac new.mp4) with the program that made it"
        )
    return MediaError(f"{path} holds neither sound nor moving pictures, or tracks of no length: record it again")


def _check(path: Path) -> None:
    """What FFmpeg would say less clearly."""
    if path.is_dir():
        raise MediaError(f"{path} is a folder: name one file in it, or read it as a folder of clips")
    if path.exists() and not path.is_file():
        raise MediaError(f"{path} is not a file but a device or pipe: name a recording, or use it as a live source")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise MediaError(f"there is no file {path}: check its name and the folder you are in") from None
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}): check who may read it (ls -l)") from None
    if empty:
        raise MediaError(f"{path} is empty: copy or record it again")


def _usable(stream: AudioStream | VideoStream) -> bool:
    return stream.codec_context is not None and stream.duration != 0


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
