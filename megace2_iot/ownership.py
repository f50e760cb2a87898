"""What a tier keeps on its disk is of one site: its windows, adapters and ledger never get into another one's."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from megace2_iot.problems import Problem


def claim(mark: Path, site: str) -> None:
    """Write `site` (the root of its topics) into the file `mark`, or find it there; its folder is made.

    Raises `Problem` where the mark is another site's, or the folder cannot be used.
    """
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        if not mark.exists():
            _write_first(mark, site)
        owner = mark.read_text("utf-8", errors="replace").strip()
    except OSError as error:
        raise Problem(f"{mark.parent} cannot be used: {error.strerror}; choose another state_dir") from None
    if owner != site:
        raise Problem(
            f"{mark.parent} holds what is of the site {owner!r}, and this is {site!r}: choose another state_dir, or "
            f"delete {mark.name} there if the site was only renamed"
        )


def _write_first(mark: Path, site: str) -> None:
    """Whole or not at all, and never over somebody else's."""
    with tempfile.NamedTemporaryFile("w", dir=mark.parent, prefix=f".{mark.name}-") as file:
        file.write(f"{site}\n")
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(file.name, mark)
