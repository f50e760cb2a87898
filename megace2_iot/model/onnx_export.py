"""Mega-CE2 as an ONNX file: raw features and true lengths in, scores out, any batch and any time.

The graph holds no decision that depends on data: what `fusion.py` skips for a modality that nobody has is computed
here and masked, so that the answers are the same. An adapter is not exported.
Letters: B batch, T_m time of modality m, D_m width of its features, d width.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.attention import look_mask
from megace2_iot.model.fusion import CrossModalTransformer, sources_of

OPSET = 18
EXAMPLE = {"text": 5, "audio": 7, "vision": 6}  # steps of what the model is traced with; none is fixed by it


class OnnxForm(nn.Module):
    """A model without branches. Every modality is given: where a sample lacks one, any step and a length of 0.

    `embedded`: what is given is Z[0] (B, T_m, d), and the stem is left out.
    """

    def __init__(self, model: CrossModalTransformer, *, embedded: bool = False) -> None:
        super().__init__()
        self.embedded = embedded
        self.model = copy.deepcopy(model).cpu().eval()
        self.model.adapter = None
        self.model.stem.positions = ComputedPositions(model.config.width)  # type: ignore[assignment]
        self.memory_positions = ComputedPositions(2 * model.config.width)

    def forward(
        self,
        text: Tensor,
        audio: Tensor,
        vision: Tensor,
        text_length: Tensor,
        audio_length: Tensor,
        vision_length: Tensor,
    ) -> Tensor:
        """Scores (B, outputs) of features (B, T_m, D_m), right-padded, with true lengths (B,)."""
        features: dict[Modality, Tensor] = {"text": text, "audio": audio, "vision": vision}
        lengths: dict[Modality, Tensor] = {"text": text_length, "audio": audio_length, "vision": vision_length}
        z = features if self.embedded else self.model.embed(features, lengths)
        if self.model.config.mult_compat:
            lengths = {m: torch.full_like(lengths[m], z[m].shape[1]) for m in z}
        summaries = [self._summary(target, z, lengths) for target in MODALITIES]
        scores: Tensor = self.model.head(torch.cat(summaries, dim=-1))
        return scores

    def _summary(self, target: Modality, z: dict[Modality, Tensor], lengths: dict[Modality, Tensor]) -> Tensor:
        """(B, 2d): what the target's stream comes to; zeros for a sample that lacks it."""
        own, config = z[target], self.model.config
        crossed, lone = [], torch.ones_like(lengths[target], dtype=torch.bool)
        for source in sources_of(target):
            mask = self._mask(target, source, z, lengths)
            out = self.model.get_submodule(f"{target}_from_{source}")(own, z[source], mask)
            present = lengths[source] > 0
            crossed.append(torch.where(present[:, None, None], out, 0.0))
            lone = lone & ~present
        fused = torch.where(lone[:, None, None], torch.cat([own, own], dim=-1), torch.cat(crossed, dim=-1))
        positions = self.memory_positions(fused.shape[1])
        if config.mult_compat:
            positions = positions * (fused[..., :1] != 0.0)
        fused = math.sqrt(2 * config.width) * fused + positions
        memory = self.model.get_submodule(f"{target}_memory")(fused, mask=self._mask(target, target, z, lengths))
        steps, time = lengths[target][:, None], torch.arange(own.shape[1], device=own.device)
        counted = ((time < steps) & (time >= steps - config.last_k)).to(own.dtype)
        weights = counted / counted.sum(dim=1, keepdim=True).clamp(min=1.0)
        return torch.bmm(weights[:, None], memory)[:, 0]

    def _mask(
        self, target: Modality, source: Modality, z: dict[Modality, Tensor], lengths: dict[Modality, Tensor]
    ) -> Tensor:
        times, causal = (z[target].shape[1], z[source].shape[1]), self.model.config.causal
        return look_mask(lengths[target], lengths[source], *times, causal=causal)


class ComputedPositions(nn.Module):
    """The rows of `stem.sinusoids`, computed in the graph: a table would bound the time."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.odd, half = width % 2, width // 2
        step = -(math.log(10_000.0) / max(half - 1, 1))
        self.register_buffer("frequencies", torch.exp(torch.arange(half, dtype=torch.float64) * step))

    def forward(self, length: int) -> Tensor:
        """Rows of positions 1..`length`: (length, d)."""
        angles = torch.arange(1, length + 1, dtype=torch.float64)[:, None] * self.frequencies
        return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, self.odd)).to(torch.float32)


def export_onnx(model: CrossModalTransformer, path: Path) -> None:
    """Write the model's ONNX form. Raises ImportError where the extra `onnx` is not installed."""
    batch = torch.export.Dim("batch")
    features = [torch.zeros(2, EXAMPLE[m], model.config.dims[m]) for m in MODALITIES]
    lengths = [torch.tensor([EXAMPLE[m], EXAMPLE[m] - 1]) for m in MODALITIES]
    times = [{0: batch, 1: torch.export.Dim(f"{m}_steps")} for m in MODALITIES]
    shapes = (*times, *({0: batch} for _ in lengths))
    traced(OnnxForm(model).eval(), (*features, *lengths), shapes).save(str(path))


def traced(form: OnnxForm, example: tuple[Tensor, ...], shapes: tuple[Any, ...], *, optimize: bool = True) -> Any:
    """The form as torch's ONNX program. Raises ImportError where the extra `onnx` is not installed."""
    import onnxscript  # noqa: F401  (torch's exporter needs it, and says so less clearly)

    noise = logging.getLogger("torch.onnx")
    level = noise.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own parts about each other
        noise.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                form,
                example,
                input_names=[*MODALITIES, *(f"{m}_length" for m in MODALITIES)],
                output_names=["scores"],
                dynamic_shapes=shapes,
                opset_version=OPSET,
                dynamo=True,
                optimize=optimize,
                verbose=False,
            )
        finally:
            noise.setLevel(level)
    if program is None:
        raise RuntimeError("torch made no ONNX program")
    return program
