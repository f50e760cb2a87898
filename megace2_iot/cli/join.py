"""`megace2 join`: become a node of a site, over the network."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from megace2_iot.cli.enroll import start_line


def command(
    text: Annotated[str, typer.Argument(metavar="JOIN-STRING", help="What 'megace2 enroll ID --join' printed.")],
    out: Annotated[Path, typer.Option(help="Where the folder with its keys goes.")] = Path("identities"),
) -> None:
    """Make this machine's keys, have them certified by the site, and keep them."""
    from megace2_iot.signing import need_cryptography

    need_cryptography()
    from broker.lab.joining import join

    folder, identity = asyncio.run(join(text, out))
    print(f"this is {identity.role} {identity.id} of site {identity.site} at {identity.url} now: {folder}")
    print(f"  {start_line(identity.role, folder)}")
