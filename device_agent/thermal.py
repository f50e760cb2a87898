"""When training waits because the machine is too warm."""

from __future__ import annotations

from megace2_iot.hardware import temperature

__all__ = ["COOLER", "held_off", "temperature"]
COOLER = 5.0  # K below the limit before training goes on, so that it does not start and stop all the time


def held_off(held: bool, warmth: float | None, limit: float) -> bool:
    """Whether training is held off at `warmth`, where it was `held` before; never where nothing is known. Pure."""
    if warmth is None:
        return False
    return warmth > limit - COOLER if held else warmth >= limit
