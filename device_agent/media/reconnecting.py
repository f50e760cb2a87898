"""Keep a device open that may be absent, in use, or unplugged at any time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TypeVar

from device_agent.media.chunks import Losses

T = TypeVar("T")
log = logging.getLogger(__name__)

FIRST_WAIT = 1.0  # s before a device is tried again, doubled each time
LONGEST_WAIT = 10.0  # s


class DeviceLost(Exception):
    """A device that cannot be opened or gives no more; the text says which, why, and what to do."""


def reconnecting(
    attempt: Callable[[], Generator[T | None, None, None]],
    stop: threading.Event,
    losses: Losses,
    kind: str,
    *,
    first_wait: float = FIRST_WAIT,
) -> Iterator[T]:
    """What one attempt after the other yields, until `stop`. None is only a sign of life, to look at `stop`.

    A loss is counted (`camera_lost`, `microphone_lost`) and logged once, however often opening fails after it.
    """
    wait, lost = first_wait, False
    while not stop.is_set():
        try:
            with closing(attempt()) as things:
                for thing in things:
                    if stop.is_set():
                        return
                    if thing is None:
                        continue
                    if lost:
                        log.info("the %s is back", kind)
                    wait, lost = first_wait, False
                    yield thing
            return
        except DeviceLost as loss:
            if not lost:
                losses.count(f"{kind}_lost")
                log.warning("%s; trying again until it is there", loss)
            lost = True
        stop.wait(wait)
        wait = min(2 * wait, LONGEST_WAIT)
