"""Microphones of Linux through FFmpeg's ALSA input."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.container import InputContainer

from device_agent.media.reconnecting import DeviceLost

Heard = tuple[AudioFrame, float]  # a frame, and the monotonic s at which its first sample sounded

CONVERTING = ("default", "sysdefault", "plughw:", "pulse", "pipewire")  # devices that give whatever is asked for
# What another device may insist on, the cheapest first.
WISHES = ((16_000, 1), (48_000, 1), (48_000, 2), (44_100, 1), (44_100, 2))  # Hz, channels
SETTINGS = Path("/usr/share/alsa")
PLUGINS = ("/usr/lib/*/alsa-lib", "/usr/lib/alsa-lib", "/usr/lib64/alsa-lib")
NODES = Path("/dev/snd")
CARDS = Path("/proc/asound")  # containers do not see it
OLDEST = 5.0  # s that sound may have waited in the driver; a stamp beyond is of a clock that was set meanwhile


@contextmanager
def open_alsa(device: str) -> Iterator[Iterator[Heard]]:
    """An open microphone; raises DeviceLost where it is absent or in use."""
    use_system_settings()
    if "ALSA_CONFIG_PATH" not in os.environ and not Path(os.environ["ALSA_CONFIG_DIR"], "alsa.conf").exists():
        raise DeviceLost("ALSA's settings are missing: install them (sudo apt install libasound2-data)")
    absent = why_absent(device, NODES, CARDS)
    if absent is not None:
        raise DeviceLost(absent)
    with _opened(device) as container:
        yield _frames(device, container)


def use_system_settings() -> None:
    """Point PyAV's own ALSA library at this system's devices, as it was built to look under /tmp/vendor.

    Anybody may write there, and what is there names libraries to load.
    """
    os.environ.setdefault("ALSA_CONFIG_DIR", str(SETTINGS))
    plugins = [path for pattern in PLUGINS for path in Path("/").glob(pattern.lstrip("/"))]
    os.environ.setdefault("ALSA_PLUGIN_DIR", str(plugins[0] if plugins else PLUGINS[1]))


def why_absent(device: str, nodes: Path, cards: Path) -> str | None:
    """What a look at the kernel's list of devices says against opening one; None where nothing does.

    Only FFmpeg's "input/output error" would come of it otherwise, and lines of ALSA's on standard error at each try.
    """
    if not device.startswith((*CONVERTING[:3], "hw:")) or os.environ.get("PULSE_SERVER"):
        return None
    if not any(nodes.glob("pcmC*D*c")):
        return f"there is no microphone for {device}: plug one in, or see which there are (arecord -l)"
    states = [path.read_text(errors="replace").strip() for path in cards.glob("card*/pcm*c/sub*/status")]
    if device.startswith(("hw:", "plughw:")) and states and "closed" not in states:
        return f"the microphone {device} is in use by another program: close that"
    return None


def heard_at(stamp: float | None, length: float, wall: float, now: float) -> float:
    """When sound of `length` s began, in monotonic s: the driver's stamp is on the wall clock, which may be set."""
    waited = length if stamp is None else wall - stamp
    return now - (waited if 0 <= waited <= OLDEST else length)


@contextmanager
def _opened(device: str) -> Iterator[InputContainer]:
    failure: Exception | None = None
    for rate, channels in WISHES[:1] if device.startswith(CONVERTING) else WISHES:
        try:
            options = {"sample_rate": str(rate), "channels": str(channels)}
            container = av.open(device, format="alsa", options=options)
        except (av.error.FFmpegError, OSError) as error:
            failure = error
            if getattr(error, "errno", None) == errno.EBUSY:
                break
        else:
            with container:
                yield container
            return
    reason = getattr(failure, "strerror", None) or failure
    raise DeviceLost(
        f"the microphone {device} cannot be opened ({reason}): it is absent or in use by another program; see which "
        "there are (arecord -l) and that this user is in the group audio (id)"
    )


def _frames(device: str, container: InputContainer) -> Iterator[Heard]:
    try:
        for packet in container.demux(audio=0):
            for frame in packet.decode():
                if isinstance(frame, AudioFrame) and frame.samples:
                    length = frame.samples / frame.sample_rate
                    yield frame, heard_at(frame.time, length, time.time(), time.monotonic())
    except (av.error.FFmpegError, OSError) as error:
        raise DeviceLost(f"the microphone {device} was unplugged ({error.strerror}): plug it in again") from None
    raise DeviceLost(f"the microphone {device} gives no more sound: plug it in again")
