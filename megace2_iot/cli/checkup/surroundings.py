"""The machine, its clock and its disk, and the broker."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
from collections.abc import Collection
from pathlib import Path

import aiomqtt
from pydantic import BaseModel

from megace2_iot.bus import BrokerSettings, NotPublished
from megace2_iot.bus.opening import open_connection
from megace2_iot.bus.probing import probe
from megace2_iot.cli.checkup.check import Check, Role
from megace2_iot.hardware import free_disk
from megace2_iot.messages import Hardware
from megace2_iot.service import Settings

PATIENCE = 3.0  # s for the broker
LEAST_FREE = 1 << 30  # bytes below state_dir: a device's outbox alone may take half of it
TRAINS_FROM = 768 << 20  # bytes of memory
WARM = 75.0  # degrees Celsius from which a device's training waits
UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
STATE_DIRS: dict[Role, Path] = {
    "device": Path("state/device"),
    "edge": Path("state/edge"),
    "cloud": Path("state/cloud"),
}


def check_machine(profile: Hardware, roles: Collection[Role]) -> list[Check]:
    """The profile that a device tells its edge."""
    small = "device" in roles and 0 < profile.memory < TRAINS_FROM
    little = "a device takes part in rounds from 768 MiB of memory on; this one only streams" if small else ""
    warm = profile.temperature is not None and profile.temperature >= WARM
    cool = f"training waits from {WARM:.0f} degrees on: give it air or a heat sink" if warm else ""
    warmth = "not told" if profile.temperature is None else f"{profile.temperature:.1f} degrees Celsius"
    return [
        Check("machine", "model", profile.machine),
        Check("machine", "processor", f"{platform.machine()}, {profile.cores} cores"),
        Check("machine", "memory", f"{profile.memory / 2**30:.1f} GiB", little),
        Check("machine", "accelerator", profile.accelerator or "none", here=bool(profile.accelerator)),
        Check("machine", "temperature", warmth, cool, here=profile.temperature is not None),
    ]


def check_clock() -> Check:
    """Whether the kernel takes the clock for synchronised; windows of a scene are cut by it."""
    try:
        told = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024))  # modes = 0: it only asks
    except AttributeError:  # not Linux
        return Check("machine", "clock", "not told", here=False)
    if told != UNSYNCHRONISED:
        return Check("machine", "clock", "synchronised")
    advice = "times of several devices will not fit: sudo timedatectl set-ntp true, or install chrony"
    return Check("machine", "clock", "not synchronised", advice)


class Place(BaseModel):
    """Of a tier's settings only what is looked at here: the whole would import torch for an edge."""

    state_dir: Path
    sources: tuple[str, ...] = ()  # a device's


def place(settings: Settings, role: Role) -> Place:
    """Raises `Problem` for what cannot be a folder or a list of sources."""

    class OfRole(Place):
        state_dir: Path = STATE_DIRS[role]

    return settings.section(role, OfRole)


def check_disk(settings: Settings, roles: Collection[Role]) -> list[Check]:
    """Free disk where each tier keeps its state, and whether this user may write there."""
    return [_disk(role, place(settings, role).state_dir) for role in STATE_DIRS if role in roles]


def _disk(role: str, folder: Path) -> Check:
    free = free_disk(folder)
    near = folder.absolute()
    while not near.exists() and near != near.parent:
        near = near.parent
    advice = ""
    if not os.access(near, os.W_OK):
        advice = f"{near} cannot be written: give it to this user, or choose another [{role}] state_dir"
    elif free < LEAST_FREE:
        advice = f"less than {LEAST_FREE >> 30} GiB free: make room, or choose another [{role}] state_dir"
    return Check("machine", f"{role}'s disk", f"{free / 2**30:.1f} GiB free in {folder}", advice, needed=True)


async def look_at_broker(settings: BrokerSettings, node: str, root: str) -> list[Check]:
    """Whether the broker is reached, and what it can do then, by trying it below the topic `root`."""
    reached = await check_broker(settings, node)
    return [reached] if reached.advice else [reached, *await check_abilities(settings, root)]


async def check_abilities(settings: BrokerSettings, root: str) -> list[Check]:
    """What a broker that is reached can do; one line where it cannot be tried."""
    try:
        findings = await probe(settings, root)
    except (aiomqtt.MqttError, NotPublished, OSError) as error:
        return [Check("broker", "abilities", f"not tried: {error}", here=False)]
    return [Check("broker", f.name, f.found, f.advice, here=f.able is not False) for f in findings]


async def check_broker(settings: BrokerSettings, node: str, patience: float = PATIENCE) -> Check:
    """One connect with the node's own account."""
    try:
        async with asyncio.timeout(patience):
            connection, protocol = await open_connection(
                settings.model_copy(update={"timeout": patience}), node, None, lambda *_: None, settings.protocol
            )
        await connection.leave(gracefully=True)
    except (aiomqtt.MqttError, NotPublished, OSError) as error:
        reason = str(error) or f"no answer within {patience:g} s"
        advice = (
            f"no way to {settings.url} ({reason}): start a broker (megace2 broker), or mend [broker] url, "
            "username, password and ca_file"
        )
        return Check("broker", settings.url, "not reached", advice, needed=True)
    return Check("broker", settings.url, f"reached by MQTT {protocol}")
