"""The picture of noise: how many words are read, and beside it what it costs in accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from device_agent.extraction.picture import HEIGHT
from megace2_iot.cli.experiments.exposure import vocoder
from megace2_iot.cli.experiments.exposure.finding import Array, Finding
from megace2_iot.cli.experiments.exposure.pictures import drawn_again
from megace2_iot.cli.experiments.exposure.sound import log_mel
from megace2_iot.cli.experiments.exposure.takes import generated
from megace2_iot.cli.experiments.exposure.words import NOISE, noise_name

Line = tuple[list[float], list[float]]  # mean and deviation at each level
LEVELS = ("none", *(f"{part:g}" for part in NOISE))
TITLES = ("a picture, 60 x 80 cells", "rebuilt from the features", "a voice, every 10 ms", "rebuilt from the features")
CODINGS = ("bound", *(noise_name(part) for part in NOISE))


def lines(found: Iterable[tuple[Finding, float, float]], tried: str, measure: str) -> dict[str, Line]:
    """By source, the mean and deviation of a figure at each level of noise; of sources that have all levels."""
    cells: dict[str, dict[str, tuple[float, float]]] = {}
    for finding, mean, deviation in found:
        if (finding.tried, finding.measure) == (tried, measure):
            cells.setdefault(finding.source, {})[finding.coding] = (mean, deviation)
    plain = next((own["bound"] for own in cells.values() if "bound" in own), None)
    drawn = {}
    for source, own in cells.items():
        known = own if "bound" in own or plain is None else {"bound": plain, **own}  # without noise all options are one
        if set(CODINGS) <= known.keys():
            pairs = [known[coding] for coding in CODINGS]
            drawn[source] = [mean for mean, _ in pairs], [deviation for _, deviation in pairs]
    return drawn


def figure(panels: Sequence[Mapping[str, Any]]) -> Any:
    """Above, a panel each of `axis` (its label), `lines` and `guess`; below, a generated clip and what is rebuilt."""
    from matplotlib import pyplot as plt

    shown = plt.figure(figsize=(11, 6.2), layout="constrained")
    halves: Any = shown.subfigures(2, 1, height_ratios=(3.6, 2.6))
    above, below = halves
    for axes, panel in zip(above.subplots(1, len(panels)), panels, strict=True):
        _levels(axes, panel)
    for axes, title, image in zip(below.subplots(1, 4), TITLES, rebuilt(), strict=True):
        if len(image) == HEIGHT:
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, aspect="auto")
        else:
            axes.imshow(image, cmap="magma", vmin=-16, vmax=0, aspect="auto", origin="lower")
            axes.set(xlabel="time", ylabel="mel bands")
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    return shown


def rebuilt() -> tuple[Array, Array, Array, Array]:
    """Of the generator's first clip, luma (60, 80) and log mel spectrum (40, F), and each as its features have it."""
    take = generated(0, 1)[0]
    middle = len(take.lumas) // 2
    made = vocoder.speak(take.audio, vocoder.STEP, len(take.samples))
    pictures = take.lumas[middle], drawn_again(take.vision)[middle]
    return (*pictures, log_mel(take.samples).T, log_mel(made).T)


def _levels(axes: Any, panel: Mapping[str, Any]) -> None:
    places = range(len(LEVELS))
    for number, (source, (mean, deviation)) in enumerate(panel["lines"].items()):
        axes.errorbar(places, mean, yerr=deviation, fmt="o-", ms=4, lw=1.3, color=f"C{number}", label=source)
    axes.axhline(panel["guess"], color="#7b8794", lw=1, ls=":", label="guessing")
    axes.set_xticks(places, LEVELS)
    axes.set(xlabel="[device] noise, part of each channel's deviation", ylabel=panel["axis"])
    axes.legend(frameon=False, fontsize=8)
    axes.grid(color="#e4e7eb", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
