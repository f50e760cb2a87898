"""Sites for tests: on the loopback, on free ports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from tiers import free_port

from broker.lab.registry import Enrolled
from broker.lab.running import site_embedded, site_mosquitto
from broker.lab.site import Site, SiteConfig
from megace2_iot.bus import BrokerSettings
from megace2_iot.identity import Role

NODES: dict[str, Role] = {"cloud": "cloud", "edge-1": "edge", "cam-01": "device", "cam-02": "device", "ann": "operator"}


def make_site(folder: Path, name: str = "lab", **config: object) -> Site:
    """A site that listens on the loopback."""
    ports = {"port": free_port(), "enrolment_port": free_port()}
    given = {"name": name, "hosts": ("127.0.0.1", "localhost"), "bind": "127.0.0.1", **ports, **config}
    return Site.create(folder / name, SiteConfig.model_validate(given))


def enroll_all(site: Site, out: Path) -> BrokerSettings:
    """A cloud, an edge, two devices of it and an operator; the settings by which each connects."""
    for name, role in NODES.items():
        edge = "edge-1" if role == "device" else None
        site.enroll(Enrolled(id=name, role=role, edge=edge), out)
    return BrokerSettings(identity=out)


@contextlib.asynccontextmanager
async def served(site: Site, by: Literal["mosquitto", "embedded"] = "mosquitto") -> AsyncIterator[None]:
    """Run the site's broker while the block runs, as `megace2 broker up` does."""
    async with (site_mosquitto if by == "mosquitto" else site_embedded)(site) as ended:
        watching = asyncio.create_task(ended(), name="site broker")  # type: ignore[arg-type]
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])
