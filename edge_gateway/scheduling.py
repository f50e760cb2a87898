"""The paper's resource allocation: from a device's profile and the edge's load to its configuration packet; pure.

Stage: the smaller of what both allow, by values a step. Precision: the bound grows with the load, as coarser codes make
smaller packets. Rate: unlimited while there is room, else each device's share of what the model thread can take.
Training: devices that can, unless the edge has no room for rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.messages import DeviceConfig, DeviceProfile, Policy, Stage

BUSY = 0.85  # part of the time the model thread may work before devices are slowed down
RATE_STEP = 1.25  # rates move in these ratios, so that a small change of load publishes nothing
MIN_MEMORY_TO_TRAIN = 768 << 20  # bytes; torch alone takes 300 MB


class SchedulingSettings(BaseModel):
    """What an edge allows its devices."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    relative_bound: float = Field(0.02, ge=0, le=0.5)  # largest error of a channel, as a part of its range
    stages: tuple[Stage, ...] = ("embedded", "features")
    train: bool = True
    share_labels: bool = False
    max_unanswered: int = Field(32, ge=1, le=1024)
    windows_per_packet: int = Field(8, ge=1, le=16)
    answers: Policy = "edge"  # who answers, where the device can; else the edge does
    confidence_floor: float = Field(0.8, ge=0, le=1)  # of `confident_local`
    audit: float = Field(0.05, ge=0, le=1)  # part of the windows that go up all the same


@dataclass(frozen=True, slots=True)
class Load:
    """The edge's measured load."""

    busy: float = 0.0  # part of the last seconds in which the model thread worked
    arriving: float = 0.0  # windows a second from all devices
    devices: int = 1


@dataclass(frozen=True, slots=True)
class Needs:
    """What the released model takes."""

    dims: Mapping[Modality, int]
    width: int
    preset: str
    family: str
    stem: str
    stem_size: int


@dataclass(frozen=True, slots=True)
class Unservable:
    """Why a profile cannot be served; a normal outcome, told to the device."""

    reason: str


def plan(
    profile: DeviceProfile, needs: Needs, load: Load, settings: SchedulingSettings, clock: str = ""
) -> DeviceConfig | Unservable:
    """The configuration packet for one device, or why there is none."""
    if profile.embedded_by not in (None, needs.stem):
        return Unservable(
            f"its windows were embedded by stem {(profile.embedded_by or '')[:12]}, this edge's model stands on "
            f"{needs.stem[:12]}: record features, or start the cloud with that stem's checkpoint"
        )
    takes = dict.fromkeys(needs.dims, needs.width) if profile.embedded_by else needs.dims
    wrong = [m for m, dim in profile.dims.items() if takes.get(m) != dim]
    if wrong or not profile.dims:
        return Unservable(
            f"it sends {_listed(profile.dims)}, the model takes {_listed(takes)}: "
            f"{', '.join(wrong) or 'every modality'} cannot be served; start the device with matching features, or the "
            f"cloud with a model for them (megace2 cloud --dims {_typed(profile.dims)})"
        )
    stage = _stage(profile, needs, settings)
    if stage is None:
        return Unservable(f"it can send {', '.join(profile.stages)}, this edge takes {', '.join(settings.stages)}")
    return DeviceConfig(
        stage=stage,
        relative_bound=min(0.5, settings.relative_bound * (2.0 if load.busy > BUSY else 1.0)),
        rate=_rate(profile, load),
        max_unanswered=settings.max_unanswered,
        windows_per_packet=settings.windows_per_packet,
        train=settings.train and profile.can_train and profile.hardware.memory >= MIN_MEMORY_TO_TRAIN,
        share_labels=settings.share_labels,
        answers=_policy(profile, settings),
        confidence_floor=settings.confidence_floor,
        audit=settings.audit,
        preset=needs.preset,
        family=needs.family,
        stem=needs.stem if stage == "embedded" or profile.can_train or _policy(profile, settings) != "edge" else None,
        stem_size=needs.stem_size,
        clock=clock,
    )


def _stage(profile: DeviceProfile, needs: Needs, settings: SchedulingSettings) -> Stage | None:
    both: list[Stage] = [stage for stage in settings.stages if stage in profile.stages]
    sizes: dict[Stage, int] = {"features": sum(profile.dims.values()), "embedded": needs.width * len(profile.dims)}
    return min(both, key=lambda stage: sizes[stage], default=None)


def _policy(profile: DeviceProfile, settings: SchedulingSettings) -> Policy:
    """What the edge wants where the device can, else what the device insists on: one that sends nothing up may."""
    if settings.answers in profile.policies or not profile.policies:
        return settings.answers if profile.policies else "edge"
    return "edge" if "edge" in profile.policies else profile.policies[0]


def _rate(profile: DeviceProfile, load: Load) -> float:
    """Windows a second; 0 is unlimited."""
    if load.busy <= BUSY:
        return 0.0
    share = profile.rate * BUSY / load.busy
    rate = 1e-3
    while rate * RATE_STEP <= share:
        rate *= RATE_STEP
    return rate


def _typed(dims: Mapping[Modality, int]) -> str:
    return ",".join(f"{modality}={dims[modality]}" for modality in MODALITIES if modality in dims) or "..."


def _listed(dims: Mapping[Modality, int]) -> str:
    return ", ".join(f"{modality} {dims[modality]}" for modality in MODALITIES if modality in dims) or "nothing"
