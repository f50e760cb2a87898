"""The experiments' pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from megace2_iot.cli.experiments.statistics import Points, mean_curve

matplotlib.use("Agg")  # files only: no display is needed

from matplotlib import pyplot as plt  # the backend is chosen first

AXES = (("at", 1.0, "virtual seconds"), ("rounds", 1.0, "rounds of an edge (mean)"), ("bytes", 1e6, "MB sent"))


def draw_curves(curves: Mapping[str, Sequence[Points]], path: Path, dashed: Collection[str] = ()) -> None:
    """Accuracy by time, rounds and bytes, a line an arm with its deviation over seeds; `dashed` arms stand apart."""
    figure, places = plt.subplots(1, len(AXES), figsize=(16, 5), layout="constrained", sharey=True)
    colours = plt.get_cmap("tab20")
    for axes, (axis, unit, label) in zip(places, AXES, strict=True):
        for number, (title, runs) in enumerate(curves.items()):
            if min(points[-1][axis] for points in runs) == 0:
                continue  # local only: no bytes
            grid, mean, deviation = (np.array(part) for part in mean_curve(runs, axis))
            style = "--" if title in dashed else "-"
            axes.plot(grid / unit, mean, color=colours(number % 20), lw=1.4, ls=style, label=title)
            axes.fill_between(
                grid / unit, mean - deviation, mean + deviation, color=colours(number % 20), alpha=0.12, lw=0
            )
        axes.set(xlabel=label)
        if axis == "bytes":
            axes.set_xscale("log")
            axes.set_xlim(left=1.0)
        axes.grid(axis="both", color="#e4e7eb", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    places[0].set_ylabel("accuracy on held-out samples")
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
