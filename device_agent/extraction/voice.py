"""Which rows are speech: louder than the room, and voiced.

The room's level is followed by minima, as in Martin 1994: it falls at once to a quieter row and rises slowly under
louder ones, by 3 dB a second, or under speech by 0.3, so that a minute's monologue does not become the room. It begins
at the first row's level; at -50 dB or below where that is voiced, as a recording may begin with a word.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_agent.extraction.pitch import VOICED
from device_agent.extraction.rows import Array

ABOVE = 3.0  # dB over the room's level that a voice needs: as loud as the noise, it adds 3
QUIETEST, GUESS = -80.0, -50.0  # dB: quieter than any microphone; a room of which only a voice was heard
RISE, RISE_IN_SPEECH = 3.0, 0.3  # dB/s
HANGOVER = 0.2  # s after a voiced row in which consonants without voice still count


@dataclass(slots=True)
class Room:
    """The room's level, row by row, and whether somebody speaks in it."""

    step: float  # s
    level: float | None = None  # dB
    _since_voice: float = np.inf  # s

    def hear(self, levels: Array, strengths: Array) -> tuple[Array, Array]:
        """The room's level in dB (R,) and speech 0 or 1 (R,) of rows with `levels` in dB and voicing `strengths`."""
        rooms, speech = np.empty(len(levels), np.float32), np.zeros(len(levels), np.float32)
        for row, (level, strength) in enumerate(zip(levels.tolist(), strengths.tolist(), strict=True)):
            rooms[row], speech[row] = self._hear(level, strength)
        return rooms, speech

    def _hear(self, level: float, strength: float) -> tuple[float, bool]:
        if self.level is None:
            self.level = max(QUIETEST, level if strength < VOICED else min(level, GUESS))
        is_loud = level > self.level + ABOVE
        self._since_voice = 0.0 if is_loud and strength >= VOICED else self._since_voice + self.step
        speaks = is_loud and self._since_voice <= HANGOVER
        rise = (RISE_IN_SPEECH if speaks else RISE) * self.step
        self.level = max(QUIETEST, min(level, self.level + rise))
        return self.level, speaks
