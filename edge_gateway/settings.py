"""Everything that can be set of one edge."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edge_gateway.distillation import DistillationSettings
from edge_gateway.forwarding import ForwardingSettings
from edge_gateway.inference import InferenceSettings
from edge_gateway.intake import SceneSettings
from edge_gateway.learning import LearningSettings
from edge_gateway.quota import QuotaSettings
from edge_gateway.scheduling import SchedulingSettings
from megace2_iot.quality import DEFAULT_FLOORS, unknown_floors


class EdgeSettings(BaseModel):
    """One edge; see docs/settings.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str = Field("edge-1", pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    state_dir: Path = Path("state/edge")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(1, ge=1, le=256)  # of the model
    runtime: Literal["auto", "onnx", "torch"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    labelled_windows: int = Field(4096, ge=1)
    health_interval: float = Field(5.0, gt=0)  # s
    metrics_port: int = Field(0, ge=0, le=65535)  # Prometheus figures on loopback; 0: none
    inference: InferenceSettings = InferenceSettings()
    quota: QuotaSettings = QuotaSettings()
    scheduling: SchedulingSettings = SchedulingSettings()
    learning: LearningSettings = LearningSettings()
    distillation: DistillationSettings = DistillationSettings()
    forwarding: ForwardingSettings = ForwardingSettings()
    scenes: SceneSettings = SceneSettings()
    floors: dict[str, float] = {}  # quality beyond which a modality is left out, where not as in docs/sensing.md

    @field_validator("floors")
    @classmethod
    def _known(cls, floors: dict[str, float]) -> dict[str, float]:
        if unknown := unknown_floors(floors):
            near = difflib.get_close_matches(unknown[0], DEFAULT_FLOORS, n=1)
            raise ValueError(f"{unknown[0]} is no quality indicator" + (f"; did you mean {near[0]}?" if near else ""))
        return floors
