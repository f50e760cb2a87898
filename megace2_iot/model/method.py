"""What the one training loop asks of a method: scores, an extra loss, and a config that a checkpoint can hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, Self

from torch import Tensor, nn

from megace2_iot.features import MODALITIES, Modality

Batch = Mapping[Modality, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodConfig:
    """What fixes a method's architecture; each method adds its own fields."""

    dims: Mapping[Modality, int]  # width D of each modality's features; 1 of one that the data lack
    outputs: int = 1

    def __post_init__(self) -> None:
        if set(self.dims) - set(MODALITIES) or min(self.outputs, *self.dims.values()) < 1:
            raise ValueError(f"dims name some of {', '.join(MODALITIES)}; dims and outputs are at least 1")
        # One order, that of the concatenations, whatever the order in which they were given or stored.
        object.__setattr__(self, "dims", {m: self.dims.get(m, 1) for m in MODALITIES})

    def to_json(self) -> str:
        """Compact, with sorted keys: equal configs have equal JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The config of `to_json`. Raises ValueError for anything else."""
        try:
            raw: dict[str, Any] = dict(json.loads(text))
            if unknown := raw.keys() - {f.name for f in fields(cls)}:
                raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
            return cls(**raw)
        except (TypeError, ValueError, AttributeError, ZeroDivisionError, RecursionError) as error:
            raise ValueError(f"not a {cls.__name__}: {error}") from error


class Config(Protocol):
    """What a checkpoint keeps of an architecture."""

    @property
    def dims(self) -> Mapping[Modality, int]:
        """Width D of each modality's features."""

    @property
    def outputs(self) -> int:
        """How many scores a sample gets."""

    def to_json(self) -> str:
        """One string for equal configs."""


class Method(Protocol):
    """An `nn.Module` that scores raw features: each row of the paper's tables, baselines and ablations alike."""

    kind: ClassVar[str]  # names the class in a checkpoint

    @property
    def config(self) -> Config:
        """What fixes the architecture."""

    def __call__(self, features: Batch, lengths: Batch) -> Tensor:
        """Scores (B, outputs) of features (B, T_m, D_m), right-padded, with true lengths (B,).

        A modality is missing for the whole batch where its key is absent, for one sample where its length is 0.
        In evaluation mode a sample's answer depends neither on its batch mates nor on what the padding holds.
        """

    def training_step(self, features: Batch, lengths: Batch) -> tuple[Tensor, Tensor]:
        """Scores (B, outputs), and a scalar that the loop adds to the loss of the task."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter, frozen ones included."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The same, with their names."""

    def state_dict(self) -> dict[str, Any]:
        """Parameters and running statistics by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Set all of them. Raises RuntimeError where names or shapes differ."""

    def train(self, mode: bool = True) -> Self:
        """Switch dropout and batch statistics on or off."""

    def eval(self) -> Self:
        """Switch both off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a method is trained where nothing else is asked for; docs/methods.md names each source."""

    learning_rate: float
    batch_size: int
    epochs: int
    loss: Literal["l1", "mse"] = "l1"
    weight_decay: float = 0.0  # decoupled
    clip_norm: float | None = None  # of the whole gradient; None: not clipped
    patience: int | None = None  # stop after so many epochs without a better validation loss


def alone(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The training step of a method without a loss of its own."""
    return scores, scores.new_zeros(())
