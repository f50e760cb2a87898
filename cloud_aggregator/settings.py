"""Everything that can be set of the cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cloud_aggregator.checks import CheckSettings
from megace2_iot.datasets.splits import How
from megace2_iot.features import Modality


class CloudModel(BaseModel):
    """What release 1 is made of on an empty store."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    preset: str = "nano"
    dims: dict[Modality, int] = {"text": 24, "audio": 12, "vision": 10}
    seed: int = 0
    checkpoint: str = ""


class CloudSettings(BaseModel):
    """The cloud; see docs/settings.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    state_dir: Path = Path("state/cloud")
    rule: Literal["latched", "rate", "fedasync", "fedbuff"] = "latched"
    model: CloudModel = CloudModel()
    checks: CheckSettings = CheckSettings()
    data: str = ""  # a data set whose test rows score each release
    split: How = "official"  # of it, and the two below: as the devices' [replay] has them
    vectors: Path | None = None
    seed: int = Field(0, ge=0)
    answer_with: str = ""  # a checkpoint of a larger model that answers what edges forward; empty: the newest release
    keep_releases: int = Field(20, ge=2)  # blobs of older ones are deleted
    durable: bool = True  # wait for the disk before an update counts as received
    health_interval: float = Field(5.0, gt=0)  # s
    metrics_port: int = Field(0, ge=0, le=65535)  # Prometheus figures on loopback; 0: none
