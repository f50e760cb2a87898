"""What the commands of a site share: where it lies, and telling its broker of a change."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megace2_iot.problems import Problem

if TYPE_CHECKING:
    from broker.lab.site import Site

SITES = Path("sites")
SiteDir = Annotated[
    Path | None, typer.Option("--dir", help="The site's folder; default: the only one in sites/.", show_default=False)
]


def open_site(folder: Path | None) -> Site:
    """The site in `folder`, or the only one that lies where `broker init` puts them. Raises `Problem`."""
    from megace2_iot.signing import need_cryptography

    need_cryptography()
    from broker.lab.site import SITE, Site

    if folder is not None:
        return Site(folder)
    found = sorted(path.parent for path in SITES.glob(f"*/{SITE}"))
    if len(found) != 1:
        names = ", ".join(map(str, found)) or "none: make one with 'megace2 broker init --site lab'"
        raise Problem(f"name the site with --dir: in {SITES}/ there are {names}" if found else f"no site here: {names}")
    return Site(found[0])


def tell_broker(site: Site) -> str:
    """Have the site's broker read who may come in; what to say about it."""
    from broker.lab.running import reload

    return "the running broker knows" if reload(site) else "the broker does not run here: it reads this when it starts"


def day(at: float) -> str:
    """A date for people."""
    return time.strftime("%Y-%m-%d", time.localtime(at))
