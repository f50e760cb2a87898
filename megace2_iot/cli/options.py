"""Options that several commands share."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from megace2_iot.bus import BrokerSettings
from megace2_iot.service import Settings, find_place
from megace2_iot.topics import Topics

Config = Annotated[Path | None, typer.Option("--config", help="Settings file; default megace2.toml where it exists.")]
Broker = Annotated[
    str | None, typer.Option("--broker", help="MQTT broker, mqtts://host:port or mqtt://host:port.", show_default=False)
]
IdentityDir = Annotated[
    Path | None, typer.Option("--identity", help="This node's keys: the folder that enroll or join wrote.")
]
Insecure = Annotated[
    bool | None, typer.Option("--insecure", help="Allow mqtt:// to another machine, in the clear.", show_default=False)
]
StateDir = Annotated[Path | None, typer.Option("--state-dir", help="Where this tier keeps its state.")]
Split = Annotated[
    str | None, typer.Option(help="official (default), random (70/10/20 by sample) or speaker.", show_default=False)
]
Vectors = Annotated[Path | None, typer.Option(help="Word vectors for text: GloVe's .txt or an .npz.")]
ScaleOf = Annotated[
    Path | None, typer.Option(help="Put features on the scale of this checkpoint's training data.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]

Overrides = dict[str, dict[str, Any]]


def merged(*parts: Overrides) -> Overrides:
    """Overrides by section; what is None was not given."""
    whole: Overrides = {}
    for part in parts:
        for section, values in part.items():
            given = {key: value for key, value in values.items() if value is not None}
            whole.setdefault(section, {}).update(given)
    return whole


def of_broker(url: str | None, identity: Path | None = None, insecure: bool | None = None) -> Overrides:
    return {"broker": {"url": url, "identity": identity, "insecure": insecure}}


def passer_by(role: str) -> str:
    """A node id for a command that stays for a moment: several may run at once."""
    return f"{role}-{secrets.token_hex(3)}"


def common(settings: Settings) -> tuple[Topics, BrokerSettings]:
    """The site's topics and the broker."""
    place = find_place(settings)
    return place.topics, place.broker
