"""Who may say and hear what, as a Mosquitto access list: each node by name, by its role, and nothing else.

A device speaks on its own `up`, and hears its own `dn`, its edge's `all` and the cloud's. An edge hears what is
addressed to it, and speaks in its own name only. An operator hears everything and may send labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from broker.lab.registry import Enrolled
from megace2_iot.topics import CLOUD, Topics

Access = Literal["read", "write"]
KEEPER = "site-keeper"  # not a node: whoever has the authority's key, for a moment, to clear up behind a node
HEAD = "# Written by megace2 from the list of enrolled nodes: a change here is lost at the next enrolment.\n"


def access_list(topics: Topics, nodes: Iterable[Enrolled]) -> str:
    """The text of an access list file for the nodes that are not revoked."""
    text = [HEAD, f"user {KEEPER}", f"topic readwrite {topics.everything()}"]
    for node in nodes:
        if node.revoked_at is None:
            text.append(f"\nuser {node.id}")
            text += [f"topic {access} {topic_filter}" for access, topic_filter in rules(topics, node)]
    return "\n".join(text) + "\n"


def rules(topics: Topics, node: Enrolled) -> list[tuple[Access, str]]:
    """What one node may read and write."""
    own = {
        "device": _device,
        "edge": _edge,
        "cloud": _cloud,
        "operator": _operator,
    }[node.role](topics, node)
    more: list[tuple[Access, str]] = [("read", topic) for topic in node.read]
    more += [("write", topic) for topic in node.write]
    return own + more


def _device(topics: Topics, node: Enrolled) -> list[tuple[Access, str]]:
    edge = node.edge or "+"
    return [
        ("write", topics.device_up(node.id, "+", edge)),
        ("read", topics.device_inbox(node.id)),
        ("read", topics.edge_all(edge, "#")),
        ("read", topics.cloud_all("#")),
    ]


def _edge(topics: Topics, node: Enrolled) -> list[tuple[Access, str]]:
    return [
        ("read", topics.devices_of(node.id)),
        ("write", topics.device_down("+", "+", node.id)),
        ("write", topics.edge_all(node.id, "#")),
        ("write", topics.edge_up(node.id, "+")),
        ("write", topics.update(node.id)),
        ("read", topics.edge_inbox(node.id)),
        ("read", topics.cloud_all("#")),
    ]


def _cloud(topics: Topics, node: Enrolled) -> list[tuple[Access, str]]:
    return [
        ("read", topics.edges_up()),
        ("read", topics.updates()),
        ("write", topics.edge_down("+", "+")),
        ("write", topics.cloud_all("#")),
    ]


def _operator(topics: Topics, node: Enrolled) -> list[tuple[Access, str]]:
    return [
        ("read", topics.everything()),
        ("read", "$SYS/#"),
        ("write", topics.device_up("+", "feedback", "+")),
    ]


def check_role(role: str, node: str) -> None:
    """Raises ValueError where only the cloud may have a name, or the cloud has another, or nobody may."""
    if node == KEEPER:
        raise ValueError(f"{KEEPER!r} is the name under which the site itself speaks: choose another")
    if (role == "cloud") != (node == CLOUD):
        raise ValueError(f"the cloud of a site is called {CLOUD!r}, and nobody else is")
