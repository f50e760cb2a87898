"""The extractors of one device, as its settings have them."""

from __future__ import annotations

from device_agent.extraction.audio import AudioExtractor
from device_agent.extraction.rows import Extractor
from device_agent.extraction.settings import SenseSettings
from device_agent.extraction.text import TextExtractor
from device_agent.extraction.vectors import HashedWords, open_vectors
from device_agent.extraction.vision import VisionExtractor
from megace2_iot.features import MODALITIES, Modality


def make_extractors(settings: SenseSettings) -> dict[Modality, Extractor]:
    """One extractor for each modality of the settings, in the order of L, A, V. Raises `Problem`."""
    made = {"text": _text, "audio": _audio, "vision": _vision}
    return {modality: made[modality](settings) for modality in MODALITIES if modality in settings.modalities}


def _text(settings: SenseSettings) -> Extractor:
    vectors = open_vectors(settings.vectors, settings.max_words) if settings.vectors else HashedWords(settings.text_dim)
    return TextExtractor(vectors, stop_words=settings.stop_words)


def _audio(settings: SenseSettings) -> Extractor:
    return AudioExtractor(settings.audio_rate)


def _vision(settings: SenseSettings) -> Extractor:
    if settings.vision_model is None:
        return VisionExtractor(settings.picture_rate)
    from device_agent.extraction.onnx import OnnxExtractor

    return OnnxExtractor(
        settings.vision_model,
        settings.picture_rate,
        mean=settings.vision_mean,
        std=settings.vision_std,
        batch=settings.vision_batch,
    )
