"""Whose turn it is: live windows, then what is sent again, then the backlog from its oldest on.

A window is live until it has waited `LIVE_WITHIN` s for its first sending; then it is backlog, as is all that an
earlier run left. The backlog may not fill what may be under way: what is live never waits for the answer to something
old. No call looks at more windows than may be under way, however many wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from device_agent.outbox.rows import Rows
from device_agent.outbox.under_way import UnderWay

LIVE_WITHIN = 1.0  # s
MOST_LIVE = 1024  # windows; older ones are backlog
LIVE_SHARE = 4  # one in so many of those that may be under way is kept free for what is live
SOON = 0.001  # s, the shortest wait that `wait` tells


@dataclass(frozen=True, slots=True)
class Pressure:
    """What the link has not carried yet: `size` bytes, about, the `oldest` of them captured at (unix s)."""

    size: int
    oldest: float | None


class Order:
    """The windows of one outbox by turns. All times are unix s."""

    def __init__(self, rows: Rows, last: int) -> None:
        """All that is here, up to the seq `last`, is backlog."""
        self._rows = rows
        self._live: OrderedDict[int, float] = OrderedDict()  # never sent, by capture time
        self._backlog_from, self._backlog_to = 0, last  # where what is neither live nor was ever sent lies
        self._outage_to = last  # what waits up to here says nothing of today's link
        self._last = last
        self._max_unanswered = 1  # as `next` was told last
        self.under_way = UnderWay()

    def came(self, seq: int, captured_at: float) -> None:
        """A window was accepted."""
        self._age(captured_at)  # while nothing is sent, too
        self._last = seq
        self._live[seq] = captured_at
        if len(self._live) > MOST_LIVE:
            self._backlog_to, _ = self._live.popitem(last=False)

    def left(self, seq: int) -> None:
        """A window is not here any more."""
        self._live.pop(seq, None)
        self.under_way.free(seq)

    def sent(self, seqs: Iterable[int], now: float, delay: float) -> None:
        """These are under way; without an answer they are due again `delay` s later."""
        seqs = list(seqs)
        for seq in seqs:
            self._live.pop(seq, None)
        self.under_way.mark(seqs, now, delay)

    def reset(self) -> None:
        """A new link: what was under way is due again at once, and stays counted as under way."""
        self.under_way.reset()
        self._outage_to = self._last

    def rewind(self) -> None:
        """Windows came back that had left: all that is not under way is backlog."""
        self._live.clear()
        self._backlog_from, self._backlog_to = 0, self._last

    def next(self, now: float, limit: int, max_unanswered: int, replay: int) -> list[int]:
        """Up to `limit` seqs to send now, of the backlog at most `replay`; never live ones with others.

        Not more than `max_unanswered` are under way at a time; sending one of them again takes no more room.
        """
        self._max_unanswered = max_unanswered
        self._age(now)
        room = max_unanswered - len(self.under_way)
        if self._live and room > 0:
            return list(self._live)[: min(limit, room)]
        again = self.under_way.due(now)[:limit]
        return sorted(again + self._backlog(min(limit - len(again), replay, self._backlog_room())))

    def wait(self, now: float, replay_in: float) -> float | None:
        """Seconds (never 0) until `next` has something, with backlog in `replay_in` s; None when nothing waits."""
        waits = [] if (again := self.under_way.wait(now)) is None else [again]
        if self._live and len(self.under_way) < self._max_unanswered:
            waits.append(0.0)
        elif self._has_backlog() and self._backlog_room() > 0:
            waits.append(replay_in)
        return max(SOON, min(waits)) if waits else None

    def _age(self, now: float) -> None:
        """What waited too long is live no more."""
        while self._live:
            seq, captured_at = next(iter(self._live.items()))
            if now - captured_at < LIVE_WITHIN:
                break
            del self._live[seq]
            self._backlog_to = seq

    def _has_backlog(self) -> bool:
        return self._rows.count > len(self._live) + len(self.under_way)

    def _backlog_room(self) -> int:
        return self._max_unanswered - self._max_unanswered // LIVE_SHARE - len(self.under_way)

    def _backlog(self, limit: int) -> list[int]:
        """The first seqs of the backlog that were not sent in this run."""
        if limit <= 0 or not self._has_backlog():
            return []
        unsent = self._unsent(self._backlog_from, limit)
        self._backlog_from = unsent[0] if unsent else self._backlog_to + 1
        return unsent

    def _unsent(self, first: int, limit: int) -> list[int]:
        found = self._rows.seqs(first, self._backlog_to, len(self.under_way) + limit)
        return [seq for seq in found if seq not in self.under_way][:limit]

    # -- what others ask --------------------------------------------------------------
    def unsent_backlog(self, now: float) -> tuple[int, int]:
        """Between which seqs, both included, backlog waits for its first sending; a gap there is told in its turn."""
        self._age(now)
        first = self._backlog(1) or [self._last + 1]
        return first[0], self._backlog_to

    def pressure(self) -> Pressure:
        """What came since the last connect and was not sent: an outage's backlog is no fault of today's link."""
        waiting = self._unsent(max(self._backlog_from, self._outage_to + 1), 1)
        first = waiting[0] if waiting else next((seq for seq in self._live if seq > self._outage_to), None)
        if first is None:
            return Pressure(0, None)
        unsent = min(self._rows.count - len(self.under_way), self._last - first + 1)
        return Pressure(unsent * self._rows.size // max(1, self._rows.count), self._rows.captured_at(first))
