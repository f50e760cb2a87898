"""What `updates` and `rollback` share: they visit the cloud's ledger, and ask the cloud that holds it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from megace2_iot.cli.options import merged
from megace2_iot.problems import Problem
from megace2_iot.service import Settings

if TYPE_CHECKING:
    from cloud_aggregator.ledger import Ledger
    from cloud_aggregator.requests import Kind

PATIENCE = 60.0  # s for a running cloud, which may be folding a large update


@contextlib.contextmanager
def visiting(config: Path | None, state_dir: Path | None) -> Iterator[Ledger]:
    """The ledger of the cloud that these settings name."""
    from cloud_aggregator.ledger import visit
    from cloud_aggregator.settings import CloudSettings

    settings = Settings(config, merged({"cloud": {"state_dir": state_dir}}))
    with visit(settings.section("cloud", CloudSettings).state_dir) as ledger:
        yield ledger


def ask(ledger: Ledger, kind: Kind, argument: str) -> str:
    """Ask the cloud, wait, and return what it says; raises `Problem` where it would not or could not.

    Without a running cloud the request stays in the ledger: it is done when the cloud starts next.
    """
    from cloud_aggregator.ledger import is_held
    from cloud_aggregator.requests import Requests

    requests = Requests(ledger)
    number = requests.put(kind, argument)
    until = time.monotonic() + PATIENCE
    while (told := requests.outcome(number)) is None:
        if not is_held(ledger.directory) and requests.outcome(number) is None:
            return "no cloud runs on this ledger: it will be done when the cloud starts"
        if time.monotonic() > until:
            raise Problem(f"the cloud did not answer in {PATIENCE:.0f} s; the request stays and will be done")
        time.sleep(0.05)
    if not told.done:
        raise Problem(told.text)
    return told.text


def clock(at: float) -> str:
    """A time of the ledger, for a column."""
    return time.strftime("%m-%d %H:%M:%S", time.localtime(at))
