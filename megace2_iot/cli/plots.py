"""The report's two pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

from megace2_iot.cli.watching import Watch
from megace2_iot.telemetry import GROWTH

matplotlib.use("Agg")  # files only: no display is needed

from matplotlib import pyplot as plt  # the backend is chosen first

INK, ACCENT, MUTED = "#1f2933", "#1768ac", "#9aa5b1"
PHASE_COLOURS = {"generation": "#9aa5b1", "transmission": "#6fb1a0", "queue": "#e0a458", "inference": "#1768ac"}


def draw(report: Mapping[str, Any], watch: Watch, folder: Path) -> None:
    """accuracy.png and latency.png."""
    _accuracy(report, folder / "accuracy.png")
    _latency(watch, folder / "latency.png")


def _accuracy(report: Mapping[str, Any], path: Path) -> None:
    accuracy = report["accuracy"]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    rows = accuracy["by_version"]
    axes.plot([row[0] for row in rows], [row[1] for row in rows], color=ACCENT, label="release", marker=".", ms=4)
    for name, style in (("ridge", "--"), ("majority", ":")):
        if accuracy[name] is not None:
            axes.axhline(accuracy[name], color=MUTED, linestyle=style, label=name)
    axes.set(xlabel="version", ylabel="accuracy on the held-out samples", title="Accuracy by version")
    axes.set_ylim(0.35, 1.0)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _latency(watch: Watch, path: Path) -> None:
    """End-to-end times as a distribution, with each phase's beside it."""
    figures = watch.total("device")
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name in (*PHASE_COLOURS, "end_to_end"):
        histogram = figures.histograms.get(name)
        if not histogram:
            continue
        buckets = sorted(histogram.counts)
        total, seen, shares = len(histogram), 0, []
        for bucket in buckets:
            seen += histogram.counts[bucket]
            shares.append(seen / total)
        milliseconds = [1000 * GROWTH**bucket for bucket in buckets]
        colour = PHASE_COLOURS.get(name, INK)
        axes.step(milliseconds, shares, where="post", color=colour, lw=2.2 if name == "end_to_end" else 1.3,
                  label=name.replace("_", " "))  # fmt: skip
    axes.set_xscale("log")
    axes.set(xlabel="ms", ylabel="share of windows within", title="Latency", ylim=(0, 1.01))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="upper left")
    axes.grid(axis="both", color="#e4e7eb", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
