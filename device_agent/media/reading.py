"""What is wanted of raw media: rates, sizes and filters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """How sound and pictures come out of a file, camera or microphone, whatever they went in as."""

    sound: bool = True  # False leaves a sound track alone: another file holds the better one
    sound_rate: int = 16_000  # Hz
    denoise: bool = True  # high-pass and spectral noise reduction before anything is measured
    pictures: bool = True
    picture_rate: float = 15.0  # Hz, pictures at k / picture_rate s
    width: int = 80  # pixels
    height: int | None = None  # pixels; None keeps the shape of the picture, given stretches to it
