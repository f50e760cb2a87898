"""`megace2 revoke`: shut nodes out of a site, at once."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from megace2_iot.cli.site import SiteDir, open_site


def command(
    ids: Annotated[list[str], typer.Argument(help="Node ids.", metavar="ID...")],
    folder: SiteDir = None,
) -> None:
    """Revoke certificates and passwords of nodes, and end their connections."""
    from broker.lab.eviction import evict
    from broker.lab.running import reload

    site = open_site(folder)
    gone = site.revoke(ids)
    running = reload(site)
    nodes = site.nodes()
    for name in ids:
        if running:
            asyncio.run(evict(site, nodes[name]))
        before = "" if name in gone else ", as it was before"
        print(f"{name} is shut out{before}" + ("" if running else ": the broker does not run here"))
