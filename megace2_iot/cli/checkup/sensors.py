"""Cameras and microphones: are there any, and may this user open them."""

from __future__ import annotations

import grp
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from megace2_iot.cli.checkup.check import Check
from megace2_iot.hardware import ROOT, cameras, microphones

MayOpen = Callable[[Path], bool]


def may_open(node: Path) -> bool:
    return os.access(node, os.R_OK | os.W_OK)


def check_sensors(root: Path = ROOT, allowed: MayOpen = may_open) -> list[Check]:
    """Both kinds; a device file that may not be opened is a fault, its absence is none: devices replay, too."""
    eyes, ears = cameras(root), microphones(root)
    video = [root / "dev" / name.split(":")[0] for name in eyes]
    sound = [root / "dev/snd" / _node_of(name) for name in ears]
    return [_kind("cameras", eyes, video, "video", allowed), _kind("microphones", ears, sound, "audio", allowed)]


def check_sources(sources: Sequence[str], root: Path = ROOT, allowed: MayOpen = may_open) -> list[Check]:
    """Cameras and microphones that `[device] sources` names; a file in their place is no sensor."""
    checks = []
    for source in sources:
        kind, _, argument = source.partition(":")
        advice = ""
        if kind == "camera" and (argument or "/dev/").startswith("/dev/"):
            node = root / (argument or "/dev/video0").lstrip("/")
            if not node.exists():
                advice = f"{node} is not there: plug it in, or name another in [device] sources"
            elif not allowed(node):
                advice = _to_join([node], "video")
        elif kind == "mic" and not microphones(root) and not Path(argument).is_file():
            advice = "ALSA knows no input here: plug one in, or take it out of [device] sources"
        if kind in ("camera", "mic"):
            checks.append(Check("sensors", f"source {kind}", argument or "default", advice, needed=True))
    return checks


def _node_of(name: str) -> str:
    """ "hw:1,0: USB Audio" is /dev/snd/pcmC1D0c."""
    card, device = name.removeprefix("hw:").split(":")[0].split(",")
    return f"pcmC{card}D{device}c"


def _kind(name: str, found: Sequence[str], nodes: Sequence[Path], usual: str, allowed: MayOpen) -> Check:
    if not found:
        return Check("sensors", name, "none", here=False)
    absent = [node for node in nodes if not node.exists()]
    closed = [node for node in nodes if node.exists() and not allowed(node)]
    advice = ""
    if absent:
        advice = f"{_listed(absent)} missing: give it to this container, or load its driver"
    elif closed:
        advice = _to_join(closed, usual)
    return Check("sensors", name, "; ".join(found), advice, needed=True)


def _to_join(closed: Sequence[Path], usual: str) -> str:
    return f"{_listed(closed)} may not be opened: sudo usermod -aG {_group(closed[0], usual)} $USER, and log in anew"


def _listed(nodes: Sequence[Path]) -> str:
    return ", ".join(str(node) for node in nodes)


def _group(node: Path, usual: str) -> str:
    """The group that owns a device file; root's own is given to nobody."""
    try:
        name = grp.getgrgid(node.stat().st_gid).gr_name
    except (KeyError, OSError):
        return usual
    return usual if name == "root" else name
