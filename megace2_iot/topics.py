"""Every topic and topic filter, as functions: the only file in which a slash is typed.

    <base>/<site>/{device|edge}/<id>/up/<kind>[/<to>]      what a node says
    <base>/<site>/{device|edge}/<id>/dn/<kind>/<from>      what is said to a node
    <base>/<site>/edge/<id>/all/<kind>[/<part>]            an edge to all its devices
    <base>/<site>/cloud/all/<kind>[/<part>]                the cloud to everybody
    <base>/<site>/cloud/updates/<edge>                     an edge's finished update

`<base>` has at most one slash, so no topic has more than seven (the limit of AWS IoT Core, the narrowest broker).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

Tier = Literal["device", "edge"]

CLOUD = "cloud"  # the node id of a site's one cloud; no device or edge may take it
MAX_SLASHES = 7
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_BASE = re.compile(r"[A-Za-z0-9_-]{1,32}(/[A-Za-z0-9_-]{1,32})?")


def check_id(node: str) -> str:
    """Return `node` unchanged, or raise ValueError saying what an id may look like."""
    if not _ID.fullmatch(node):
        raise ValueError(f"{node!r} is no node id: use 1-32 of a-z, 0-9, '-' and '_', beginning with a letter or digit")
    return node


class Address(NamedTuple):
    """Where a message came from: the parsed levels of its topic."""

    tier: str
    node: str
    direction: str
    kind: str
    peer: str


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one site under one base topic; raises ValueError for a base or site that breaks the rules."""

    base: str = "megace2/v1"
    site: str = "lab"

    def __post_init__(self) -> None:
        if not _BASE.fullmatch(self.base):
            raise ValueError(f"base topic {self.base!r}: use letters, digits, '-' and '_' with at most one '/'")
        check_id(self.site)

    @property
    def root(self) -> str:
        return f"{self.base}/{self.site}"

    # -- what a device says and hears -------------------------------------------------
    def device_up(self, device: str, kind: str, edge: str) -> str:
        return f"{self.root}/device/{device}/up/{kind}/{edge}"

    def device_down(self, device: str, kind: str, edge: str) -> str:
        return f"{self.root}/device/{device}/dn/{kind}/{edge}"

    def device_inbox(self, device: str) -> str:
        """Filter: all that is said to one device."""
        return f"{self.root}/device/{device}/dn/+/+"

    # -- what an edge says and hears --------------------------------------------------
    def devices_of(self, edge: str, kind: str = "+") -> str:
        """Filter: what an edge's devices say to it."""
        return f"{self.root}/device/+/up/{kind}/{edge}"

    def edge_all(self, edge: str, kind: str, part: str = "") -> str:
        return f"{self.root}/edge/{edge}/all/{kind}" + (f"/{part}" if part else "")

    def edge_up(self, edge: str, kind: str) -> str:
        return f"{self.root}/edge/{edge}/up/{kind}/{CLOUD}"

    def edge_down(self, edge: str, kind: str) -> str:
        return f"{self.root}/edge/{edge}/dn/{kind}/{CLOUD}"

    def edge_inbox(self, edge: str) -> str:
        """Filter: all that is said to one edge."""
        return f"{self.root}/edge/{edge}/dn/+/+"

    # -- what the cloud says and hears ------------------------------------------------
    def cloud_all(self, kind: str, part: str = "") -> str:
        return f"{self.root}/cloud/all/{kind}" + (f"/{part}" if part else "")

    def update(self, edge: str) -> str:
        return f"{self.root}/cloud/updates/{edge}"

    def updates(self) -> str:
        """Filter: every edge's finished updates."""
        return self.update("+")

    def edges_up(self, kind: str = "+") -> str:
        """Filter: what all edges say to the cloud."""
        return self.edge_up("+", kind)

    # -- observers --------------------------------------------------------------------
    def observe(self, kind: str) -> tuple[str, ...]:
        """Filters: one kind of every tier, for `status` and the demo's live view."""
        return (
            f"{self.root}/device/+/up/{kind}/+",
            f"{self.root}/edge/+/all/{kind}",
            self.cloud_all(kind),
        )

    def everything(self) -> str:
        """Filter: the whole site."""
        return f"{self.root}/#"

    def parse(self, topic: str) -> Address:
        """Read a concrete topic of this site; raises ValueError for any other."""
        prefix = self.root + "/"
        levels = topic.removeprefix(prefix).split("/") if topic.startswith(prefix) else []
        match levels:
            case [("device" | "edge") as tier, node, ("up" | "dn") as direction, kind]:
                return Address(tier, node, direction, kind, "")
            case [("device" | "edge") as tier, node, ("up" | "dn" | "all") as direction, kind, peer]:
                return Address(tier, node, direction, kind, peer)
            case ["edge", node, "all", kind]:
                return Address("edge", node, "all", kind, "")
            case ["cloud", "all", kind, *part] if len(part) <= 1:
                return Address(CLOUD, CLOUD, "all", kind, part[0] if part else "")
            case ["cloud", "updates", edge]:
                return Address("edge", edge, "up", "update", CLOUD)
        raise ValueError(f"{topic!r} is no topic of {self.root}")


def is_upward(topic: str) -> bool:
    """Whether a message goes up, from a device or edge, rather than down or to all."""
    return "/up/" in topic or "/updates/" in topic


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a concrete `topic` matches an MQTT topic filter with + and # (MQTT 3.1.1, 4.7)."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)
