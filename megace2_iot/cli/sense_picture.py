"""The picture of a sensed clip: frames, spectrogram with pitch and speech, words, and the feature rows themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from device_agent.extraction.rows import Rows
from megace2_iot.cli.sensed import Clip

matplotlib.use("Agg")  # files only: no display is needed

from matplotlib import pyplot as plt  # the backend is chosen first

INK, ACCENT, WARM = "#1f2933", "#1768ac", "#e0a458"
MELS = 40  # first columns of sound
PITCH, LEVEL = 68, 66  # columns of sound
TITLES = {"text": "words", "audio": "sound", "vision": "pictures"}


def draw(clip: Clip, path: Path) -> None:
    """Draw the first window. Raises OSError where the file cannot be written."""
    rows = clip.rows
    panels = [name for name in ("frames", "spectrogram", "words") if _has(clip, name)]
    panels += [f"rows of {modality}" for modality in rows]
    heights = [1.6 if name == "frames" else 0.7 if name == "words" else 1.5 for name in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(9, sum(heights) + 1), height_ratios=heights, layout="constrained", squeeze=False
    )
    window = clip.windows[0]
    for axis, name in zip(axes[:, 0], panels, strict=True):
        if name == "frames":
            _frames(axis, clip)
        elif name == "spectrogram":
            _spectrogram(axis, rows["audio"])
        elif name == "words":
            _words(axis, clip)
        else:
            _heat(axis, rows[name.removeprefix("rows of ")])  # type: ignore[index]
        axis.set_title(name, loc="left", fontsize=9, color=INK)
        axis.set_xlim(window.start, window.end)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("s", fontsize=8)
    more = f" (first of {len(clip.windows)} windows)" if len(clip.windows) > 1 else ""
    figure.suptitle(f"{clip.name}{more}", fontsize=10, color=INK)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _has(clip: Clip, panel: str) -> bool:
    if panel == "frames":
        return bool(clip.frames)
    return ("audio" if panel == "spectrogram" else "text") in clip.rows


def _frames(axis: Any, clip: Clip) -> None:
    """Frames side by side, each where it was shown."""
    window = clip.windows[0]
    width = (window.end - window.start) / max(len(clip.frames), 1)
    for number, frame in enumerate(clip.frames):
        left = window.start + number * width
        axis.imshow(frame.pixels, extent=(left, left + width, 0, 1), aspect="auto", interpolation="nearest")
    axis.set_ylim(0, 1)
    axis.set_yticks([])


def _spectrogram(axis: Any, rows: Rows) -> None:
    """Mel bands, the pitch over them, and a bar where somebody speaks."""
    left, right = float(rows.times[0]), float(rows.times[-1] + rows.step)
    axis.imshow(rows.values[:, :MELS].T, origin="lower", aspect="auto", extent=(left, right, 0, MELS), cmap="magma")
    octaves = rows.values[:, PITCH] / 2
    voiced = np.where(octaves > 0, 12 * octaves, np.nan)
    middle = rows.times + rows.step / 2
    axis.plot(middle, voiced, color="white", lw=1.2, label="pitch")
    speech = np.where(rows.observed["speech"] > 0, MELS + 0.5, np.nan)
    axis.plot(middle, speech, color=ACCENT, lw=3, solid_capstyle="butt", label="speech", clip_on=False)
    axis.set_ylim(0, MELS + 1)
    axis.set_ylabel("mel band", fontsize=8)


def _words(axis: Any, clip: Clip) -> None:
    """What is left of the words, where they are: stop words are gone."""
    axis.vlines(clip.rows["text"].times, 0, 0.25, color=ACCENT, lw=1)
    lengths = [len(token) for token in clip.tokens]
    spent = np.cumsum([0, *lengths]) / max(sum(lengths), 1)
    for number, (token, part) in enumerate(zip(clip.tokens, spent[:-1], strict=True)):
        if (at := clip.duration * part) < clip.windows[0].end:
            axis.text(at, 0.3 + 0.32 * (number % 2), token, fontsize=7, color=INK, clip_on=True)
    axis.set_ylim(0, 1)
    axis.set_yticks([])


def _heat(axis: Any, rows: Rows) -> None:
    """The rows as they are sent, one column of the picture each."""
    step = rows.step or (float(np.diff(rows.times).mean()) if len(rows) > 1 else 0.5)
    edges = np.append(rows.times, rows.times[-1] + step)
    limit = float(np.percentile(np.abs(rows.values), 98)) or 1.0
    columns = np.arange(rows.values.shape[1] + 1)
    axis.pcolormesh(edges, columns, rows.values.T, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.set_ylabel("column", fontsize=8)
