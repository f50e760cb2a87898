"""One thing that was looked at, and what to do where it is not well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["device", "edge", "cloud"]
State = Literal["ok", "absent", "advised", "missing"]
MARKS: dict[State, str] = {"ok": "ok", "absent": "-", "advised": "!", "missing": "!!"}


@dataclass(frozen=True, slots=True)
class Check:
    """`advice` says what to do, and is empty where all is well; `needed`: a tier cannot run, or sense, without it."""

    area: str
    name: str
    found: str
    advice: str = ""
    needed: bool = False
    here: bool = True

    @property
    def state(self) -> State:
        if self.advice:
            return "missing" if self.needed else "advised"
        return "ok" if self.here else "absent"
