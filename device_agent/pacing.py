"""How fast windows may leave: no faster than the edge takes them, and backlog slower than that; pure, monotonic s."""

from __future__ import annotations

BACKLOG_SHARE = 0.5  # of the edge's rate: the other half is for what is live
HOLD = 1.0  # s of its rate that one packet of backlog may take: a live window waits no longer behind it


class Pace:
    """One device's. `replay_rate` bounds the backlog, in windows a second; 0: only the edge's rate does."""

    def __init__(self, replay_rate: float) -> None:
        self._replay_rate = replay_rate
        self._next_at = self._replay_at = 0.0

    def sent(self, windows: int, backlog: int, edge_rate: float, now: float) -> None:
        """A packet of so many windows left, some of them `backlog`; `edge_rate` in windows a second, 0: unlimited."""
        if edge_rate > 0:
            self._next_at = now + windows / edge_rate
        if (rate := self._backlog_rate(edge_rate)) and backlog:
            self._replay_at = now + backlog / rate

    def wait(self, now: float) -> float:
        """Seconds until any packet may leave."""
        return max(0.0, self._next_at - now)

    def replay_wait(self, now: float) -> float:
        """Seconds until one of backlog may."""
        return max(0.0, self._replay_at - now)

    def replay(self, limit: int, edge_rate: float, now: float) -> int:
        """How many windows of backlog the next packet may hold, of `limit`."""
        if self.replay_wait(now) > 0:
            return 0
        rate = self._backlog_rate(edge_rate)
        return max(1, min(limit, int(rate * HOLD))) if rate else limit

    def _backlog_rate(self, edge_rate: float) -> float:
        """Windows a second; 0: unlimited."""
        rates = [rate for rate in (self._replay_rate, BACKLOG_SHARE * edge_rate) if rate > 0]
        return min(rates, default=0.0)
