"""Bytes that arrive cut into lines of bounded length."""

from __future__ import annotations

from device_agent.media.chunks import Losses
from device_agent.media.text import cut

MAX_LINE = 256 * 1024  # bytes; 10,000 words are some 70 KB, in other scripts up to 200 KB


class LineCutter:
    """Holds at most one line; what is beyond `limit` bytes of it is dropped and counted (`text_cut`)."""

    def __init__(self, losses: Losses, limit: int = MAX_LINE) -> None:
        self._losses = losses
        self._limit = limit
        self._held = bytearray()  # a byte more than the limit shows that there was more

    def push(self, data: bytes) -> list[bytes]:
        """Lines that these bytes complete."""
        *ended, rest = data.split(b"\n")
        lines = [self._line(part) for part in ended]
        self._hold(rest)
        return lines

    def end(self) -> list[bytes]:
        """A last line that nobody ended."""
        return [self._line(b"")] if self._held else []

    def _line(self, part: bytes) -> bytes:
        self._hold(part)
        line = cut(bytes(self._held), self._limit, self._losses)
        self._held.clear()
        return line

    def _hold(self, part: bytes) -> None:
        self._held += part[: self._limit + 1 - len(self._held)]
