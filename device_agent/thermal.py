"""How warm the machine is, and when training waits for that."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

ZONES = Path("/sys/class/thermal")
COOLER = 5.0  # K below the limit before training goes on, so that it does not start and stop all the time


def temperature(zones: Path = ZONES) -> float | None:
    """The warmest zone in degrees Celsius; None where the system reports none."""
    found = []
    for zone in sorted(zones.glob("thermal_zone*")):
        with suppress(OSError, ValueError):
            if "pmic" in (zone / "type").read_text().lower():  # Jetson's reports a constant
                continue
            found.append(int((zone / "temp").read_text()) / 1000.0)
    return max(found, default=None)


def held_off(held: bool, warmth: float | None, limit: float) -> bool:
    """Whether training is held off at `warmth`, where it was `held` before; never where nothing is known. Pure."""
    if warmth is None:
        return False
    return warmth > limit - COOLER if held else warmth >= limit
