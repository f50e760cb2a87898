"""`--source` as it is typed: what a device senses with."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, cast

from megace2_iot.problems import Problem

Kind = Literal["clips", "file", "synthetic", "camera", "mic", "stdin", "topic"]
TAKES = {
    "clips": "a folder of clips",
    "file": "one media file",
    "synthetic": "how many clips to make, or nothing for no end",
    "camera": "a device such as /dev/video0, or a film that is played instead",
    "mic": "an ALSA device such as default, or a sound file that is played instead",
    "stdin": "nothing: it reads a sentence a line",
    "topic": "an MQTT topic with a sentence a message",
}
RECORDED: tuple[Kind, ...] = ("clips", "file", "synthetic")  # each clip is a whole; they play alone


@dataclass(frozen=True, slots=True)
class Spec:
    """One source; `argument` is what stands behind the colon."""

    kind: Kind
    argument: str = ""

    @property
    def is_recorded(self) -> bool:
        return self.kind in RECORDED


def read_spec(text: str) -> Spec:
    """Raises `Problem` for what is no source, naming those that there are."""
    kind, _, argument = text.partition(":")
    if kind not in TAKES:
        near = get_close_matches(kind, TAKES, n=1)
        known = f"did you mean {near[0]!r}?" if near else "give " + ", ".join(f"{k}:..." for k in TAKES)
        raise Problem(f"{text!r} is no source: {known}")
    if not argument and kind in ("clips", "file", "topic"):
        raise Problem(f"source {kind!r} needs {TAKES[kind]}, as in {kind}:NAME")
    if kind == "stdin" and argument:
        raise Problem(f"source {text!r}: stdin takes {TAKES[kind]}")
    if kind == "synthetic" and argument and not argument.isdigit():
        raise Problem(f"source {text!r}: synthetic takes {TAKES[kind]}")
    defaults = {"camera": "/dev/video0", "mic": "default"}
    return Spec(cast(Kind, kind), argument or defaults.get(kind, ""))


def read_specs(texts: tuple[str, ...]) -> tuple[Spec, ...]:
    """All sources of a device. Raises `Problem` where they cannot go together."""
    specs = tuple(read_spec(text) for text in texts)
    recorded = [spec for spec in specs if spec.is_recorded]
    if recorded and len(specs) > 1:
        raise Problem(f"source {recorded[0].kind} plays whole clips: give it alone, or live sources only")
    kinds = [spec.kind for spec in specs]
    once: tuple[Kind, ...] = ("camera", "mic", "stdin")
    for kind in once:
        if kinds.count(kind) > 1:
            raise Problem(f"source {kind} is given twice: a device has one of each; run another device for the second")
    return specs
