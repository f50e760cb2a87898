"""What this machine is, as Linux tells it in files: nothing is opened, asked or imported for it.

Every reading takes the folder below which the system's files lie, `/` but in tests; what is not to be had is empty.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from megace2_iot.messages import Hardware

ROOT = Path("/")
ZONES = Path("/sys/class/thermal")
MOST_NAMES, LONGEST_NAME = 16, 80  # cameras, or microphones, of one profile; characters of each
# Of V4L2's nodes these belong to decoders and image processors: a Raspberry Pi has a dozen of them and no camera.
PROCESSORS = ("bcm2835-codec", "bcm2835-isp", "pispbe", "rpi-hevc", "rpivid", "hantro", "rkvdec", "tegra-video-enc")


def hardware(root: Path = ROOT) -> Hardware:
    """This machine's profile, its temperature as it is now."""
    return Hardware(
        machine=machine(root),
        cores=os.cpu_count() or 0,
        memory=memory(),
        accelerator=accelerator(root),
        clock=clock_id(),
        cameras=cameras(root),
        microphones=microphones(root),
        temperature=temperature(root / ZONES.relative_to(ROOT)),
    )


def machine(root: Path = ROOT) -> str:
    """The board's model from the device tree, "Raspberry Pi 5 Model B Rev 1.0"; else the architecture, "x86_64"."""
    return _read(root / "proc/device-tree/model") or platform.machine()


def memory() -> int:
    """Bytes of the whole machine."""
    with contextlib.suppress(OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0


def accelerator(root: Path = ROOT) -> str:
    """By NVIDIA's driver "cuda:NVIDIA H100", on a Jetson "cuda:tegra234", or empty."""
    for told in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        if found := re.search(r"^Model:\s*(.+)$", _read(told), re.MULTILINE):
            return f"cuda:{found[1].strip()}"
    if found := re.search(r"nvidia,(tegra\w+)", _read(root / "proc/device-tree/compatible").replace("\x00", " ")):
        return f"cuda:{found[1]}"
    if found := re.match(r"# R(\d+)", _read(root / "etc/nv_tegra_release")):  # a container sees no device tree
        return f"cuda:tegra, L4T {found[1]}"
    return ""


def cameras(root: Path = ROOT) -> tuple[str, ...]:
    """What gives pictures, "video0: HD Pro Webcam C920"."""
    nodes = [node for node in (root / "sys/class/video4linux").glob("video*") if _captures(node, root)]
    nodes.sort(key=lambda node: (len(node.name), node.name))
    return _names(f"{node.name}: {_read(node / 'name')}" for node in nodes)


def _captures(node: Path, root: Path) -> bool:
    """Whether udev says so; where it says nothing, what is neither a second node of its device nor a processor."""
    if _read(node / "name").lower().startswith(PROCESSORS):
        return False
    entry = _read(root / f"run/udev/data/c{_read(node / 'dev')}")
    told = re.search(r"^E:ID_V4L_CAPABILITIES=(.*)$", entry, re.MULTILINE)
    return ":capture:" in told[1] if told else _read(node / "index") in ("", "0")


def microphones(root: Path = ROOT) -> tuple[str, ...]:
    """ALSA's inputs, "hw:1,0: USB Audio"; in a container, which is not told their names, "hw:1,0"."""
    if told := _read(root / "proc/asound/pcm"):
        inputs = [line for line in told.splitlines() if ": capture" in line]
        return _names(f"hw:{int(line[:2])},{int(line[3:5])}: {line.split(':')[1].strip()}" for line in inputs)
    nodes = sorted(node.name for node in (root / "dev/snd").glob("pcmC*D*c"))
    return _names(re.sub(r"pcmC(\d+)D(\d+)c", r"hw:\1,\2", name) for name in nodes)


def temperature(zones: Path = ZONES) -> float | None:
    """The warmest zone in degrees Celsius; None where the system reports none."""
    found = []
    for zone in sorted(zones.glob("thermal_zone*")):
        with contextlib.suppress(OSError, ValueError):
            if "pmic" in (zone / "type").read_text().lower():  # Jetson's reports a constant
                continue
            found.append(int((zone / "temp").read_text()) / 1000.0)
    return max(found, default=None)


def free_disk(folder: Path) -> int:
    """Bytes that may be written below `folder`, which need not exist yet."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free
    return 0


def clock_id() -> str:
    """Names this machine's clock until it restarts: times of two nodes with one name can be subtracted."""
    return _read(ROOT / "proc/sys/kernel/random/boot_id") or f"{platform.node()}-{int(time.time() - time.monotonic())}"


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip("\x00\n ")
    return ""


def _names(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(name[:LONGEST_NAME] for name in islice(found, MOST_NAMES))
