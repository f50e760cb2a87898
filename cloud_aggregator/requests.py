"""What people ask of a cloud: rows that a command writes into the ledger and the cloud settles.

A cloud that does not run settles them when it starts next. Each can be settled twice with the same end: a crash between
doing and noting does no harm.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from cloud_aggregator.ledger import Ledger
from megace2_iot.problems import Problem

Kind = Literal["release", "drop", "rollback"]
MOST_WAITING = 100  # that no cloud has settled yet
REMEMBERED = 1000  # the newest; older ones are deleted


@dataclass(frozen=True, slots=True)
class Request:
    """`release` and `drop` name an update by its id (`*`: all that are held), `rollback` a version."""

    number: int
    kind: Kind
    argument: str


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a request, in words for who asked."""

    done: bool
    text: str


class Requests:
    """Both sides of it: `put` and `outcome` for the command, `waiting` and `settle` for the cloud."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def put(self, kind: Kind, argument: str) -> int:
        """Ask; returns the request's number. Raises `Problem` where too many wait already."""
        with self._ledger.transaction() as rows:
            (waiting,) = rows.execute("SELECT COUNT(*) FROM requests WHERE settled_at IS NULL").fetchone()
            if waiting >= MOST_WAITING:
                raise Problem(f"{waiting} requests wait for the cloud already: start it")
            values = (kind, argument, time.time())
            number = rows.execute("INSERT INTO requests(kind, argument, asked_at) VALUES(?, ?, ?)", values).lastrowid
            assert number is not None
            rows.execute("DELETE FROM requests WHERE number <= ? AND settled_at IS NOT NULL", (number - REMEMBERED,))
            return number

    def outcome(self, number: int) -> Told | None:
        """What came of a request; None as long as it waits."""
        row = self._ledger.one("SELECT done, told FROM requests WHERE number = ? AND settled_at IS NOT NULL", number)
        return Told(bool(row[0]), row[1]) if row else None

    def waiting(self) -> list[Request]:
        """In the order of asking."""
        query = "SELECT number, kind, argument FROM requests WHERE settled_at IS NULL ORDER BY number"
        return [Request(*row) for row in self._ledger.all(query)]

    def settle(self, number: int, told: Told) -> None:
        with self._ledger.transaction() as rows:
            query = "UPDATE requests SET settled_at = ?, done = ?, told = ? WHERE number = ?"
            rows.execute(query, (time.time(), told.done, told.text, number))
