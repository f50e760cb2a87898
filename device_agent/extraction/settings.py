"""What a device senses and how its features are made."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from device_agent.extraction.vectors import MAX_WORDS
from megace2_iot.features import MODALITIES, Modality


class SenseSettings(BaseModel):
    """One device's extraction; see docs/settings.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    modalities: tuple[Modality, ...] = Field(MODALITIES, min_length=1)
    vectors: Path | None = None  # GloVe's lines or an .npz; None: words are hashed from their letters
    max_words: int = Field(MAX_WORDS, ge=1, le=5_000_000)  # of the file, the first; each takes 16 bytes of memory
    text_dim: int = Field(300, ge=16, le=1024)  # of hashed vectors; a file has its own
    stop_words: bool = True  # leave out English words that carry no opinion
    audio_rate: float = Field(12.5, ge=5, le=50)  # rows a second
    denoise: bool = True  # filter noise out of the sound before
    picture_rate: float = Field(15.0, gt=0, le=60)  # rows a second
    vision_model: Path | None = None  # an ONNX model of pictures in place of the built-in descriptor
    vision_mean: tuple[float, float, float] | None = None  # of its input, RGB in 0..1; None: the model's metadata
    vision_std: tuple[float, float, float] | None = None
    window: float = Field(4.0, ge=0.5, le=60)  # s; cut at multiples of it since 1970, on every device alike
    cut: Literal["grid", "pause"] = "grid"  # or where nobody speaks
    shortest: float = Field(1.0, gt=0)  # s, of a window that ends at a pause; the longest is `window`
    pause: float = Field(0.5, gt=0)  # s without speech that end one
    lateness: float = Field(0.5, ge=0, le=30)  # s that a window waits for a track that has not come
    longest_clip: float = Field(10.0, ge=1, le=60)  # s; a longer clip becomes several windows, a shorter one is one
    vision_batch: int = Field(1, ge=1, le=32)  # pictures answered together, the first of them late by that many
