"""All that crosses the broker: one frozen model a message, each named after its topic's kind.

Times are unix seconds, durations seconds, sizes bytes. `encode` and `decode` are a pair; decoding raises `DecodeError`
only. `docs/protocol.md` lists every field for those who write their own node.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from megace2_iot import codec
from megace2_iot.codec import DecodeError
from megace2_iot.features import Modality

Stage = Literal["embedded", "features"]
NodeId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
LONGEST_REASON = 2000  # characters; a longer one is cut: it may quote a stranger, and must not break who tells it
Reason = Annotated[str, BeforeValidator(lambda text: text[:LONGEST_REASON] if isinstance(text, str) else text)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Policy = Literal["edge", "local", "local_then_edge", "confident_local"]  # who answers a device's windows

SMALL = 64 << 10  # bytes of a message that says little: what nodes remember of each other is bounded by it
INLINE_LIMIT = 128 << 10  # bytes of an update that travels inside its offer
CHUNK_SIZE = 64 << 10  # bytes of a blob in one message, everywhere: a smaller limit of a broker is an error


class Message(BaseModel):
    """The common part: a frozen map with no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)
    kind: ClassVar[str]
    zstd_level: ClassVar[int] = 3
    limit: ClassVar[int] = codec.DEFAULT_LIMIT  # bytes of the envelope's body

    def encode(self, *, level: int | None = None) -> bytes:
        """Its envelope; `level` is zstd's, where not the kind's own."""
        return codec.encode(self.model_dump(), level=self.zstd_level if level is None else level)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        message = codec.decode(data, limit=cls.limit)
        try:
            return cls.model_validate(message)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])  # the stranger's own keys, however long
            raise DecodeError(f"{cls.kind}: {where[:200]}: {first['msg'][:500]}") from None


# -- who is there ---------------------------------------------------------------------
class State(Message):
    """Retained, and the will of each connection. An `offline` of an older session than the newest birth is stale."""

    kind: ClassVar[str] = "state"
    limit: ClassVar[int] = SMALL
    state: Literal["online", "stopped", "offline"]
    session: Count  # rises at each connect of this node
    role: Literal["device", "edge", "cloud"]
    software: str = ""
    detail: Reason = ""  # for people: "refused: ...", "model 12"


class Hardware(BaseModel):
    """What the machine is; what cannot be found out is empty or 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    machine: str = ""
    cores: int = 0
    memory: int = 0  # bytes
    accelerator: str = ""  # "cuda:NVIDIA ..." or empty
    clock: str = ""  # names the machine's clock: equal on two nodes means their times can be subtracted
    cameras: tuple[str, ...] = ()  # for people: "video0: HD Pro Webcam C920"
    microphones: tuple[str, ...] = ()  # "hw:1,0: USB Audio"
    temperature: float | None = Field(None, allow_inf_nan=False)  # degrees Celsius of the warmest zone, at the birth


class DeviceProfile(Message):
    """The capability profile of the paper's section 3.3; retained."""

    kind: ClassVar[str] = "profile"
    limit: ClassVar[int] = SMALL
    hardware: Hardware = Hardware()
    sensors: tuple[str, ...] = ()
    dims: dict[Modality, Annotated[int, Field(ge=1, le=65_536)]]
    rate: float = Field(1.0, ge=0, le=10_000)  # windows a second that it expects to send
    can_train: bool = False
    embedded_by: Digest | None = None  # a recorded stream: its windows are Z[0] of this stem, and dims their widths
    stages: tuple[Stage, ...] = ("embedded", "features")
    policies: tuple[Policy, ...] = ("edge",)  # all but `edge` need something that runs a local model
    scene: Annotated[str, Field(pattern=r"^[a-z0-9_-]{0,32}$")] = ""  # its windows are parts of a scene's samples


class DeviceConfig(Message):
    """The paper's configuration packet: how this device acquires and sends; retained."""

    kind: ClassVar[str] = "config"
    limit: ClassVar[int] = SMALL
    stage: Stage
    relative_bound: float = Field(ge=0, le=0.5)  # largest error of a channel, as a part of its range in the window
    rate: float = Field(ge=0)  # windows a second the edge can take
    max_unanswered: int = Field(32, ge=1, le=1024)
    windows_per_packet: int = Field(1, ge=1, le=16)  # when catching up
    train: bool
    share_labels: bool
    answers: Policy = "edge"
    confidence_floor: Fraction = 0.8  # of a local answer, below which a window goes up by `confident_local`
    audit: Fraction = 0.05  # part of the windows that go up although a local answer would do: agreement is measured
    preset: str = ""
    family: str = ""
    stem: Digest | None = None
    stem_size: Count = 0
    clock: str = ""


class Refusal(Message):
    """What was refused, and what to do about it."""

    kind: ClassVar[str] = "refusal"
    limit: ClassVar[int] = SMALL
    about: str
    reason: Reason


class Health(Message):
    """Counters and histograms since the start; QoS 0, cumulative, so a lost one does no harm."""

    kind: ClassVar[str] = "health"
    at: float
    uptime: float = 0
    figures: dict[str, Any]
    facts: dict[str, str | int | float | None] = {}


# -- inference ------------------------------------------------------------------------
class PacketWindow(BaseModel):
    """One window of a packet: per modality the fields of a quantised (T, D) sequence."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    seq: Count
    captured_at: float
    sequences: dict[Modality, dict[str, Any]]
    quality: dict[str, float] = {}
    score: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None  # a label, where it is shared
    group: Annotated[str, Field(max_length=128)] = ""  # the recording a window belongs to: groups are never split
    features_saw_label: bool = False


class Gap(BaseModel):
    """Seqs that will never be sent, both ends included, and why: windows by reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    first: Count
    last: Count
    shed: dict[Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")], Count] = Field({}, max_length=16)

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.last < self.first:
            raise ValueError("a gap ends before it begins")
        return self


class FeaturePacket(Message):
    """Windows of one device under one epoch, all of one stage, and gaps; or gaps alone.

    The prediction of each window is its acknowledgement, that of gaps a `GapReceipt`.
    """

    kind: ClassVar[str] = "packet"
    device: NodeId
    epoch: Count
    sent_at: float
    stage: Stage
    stem: Digest | None = None  # of an embedded packet
    replayed: bool = False  # backlog: kept out of latency figures
    windows: tuple[PacketWindow, ...] = Field((), max_length=16)
    gaps: tuple[Gap, ...] = Field((), max_length=64)
    settled: Count = 0  # every smaller seq was answered or is in a gap that was receipted; 0: not said

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.windows and not self.gaps:
            raise ValueError("a packet of neither windows nor gaps")
        return self


class GapReceipt(Message):
    """The edge has these gaps on its disk, each by its first and last seq: they need not be told again."""

    kind: ClassVar[str] = "gap_receipt"
    limit: ClassVar[int] = SMALL
    zstd_level: ClassVar[int] = 0
    epoch: Count
    gaps: tuple[tuple[Count, Count], ...] = Field(min_length=1, max_length=1024)


class Timings(BaseModel):
    """Seconds at the edge on its own clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    received_at: float
    answered_at: float
    queue: float = 0.0
    inference: float = 0.0


class Prediction(Message):
    """The answer to one window, and its acknowledgement: `answered` and `refused` free it, `stem_gone` does not."""

    kind: ClassVar[str] = "prediction"
    limit: ClassVar[int] = SMALL
    zstd_level: ClassVar[int] = 0
    epoch: Count
    seq: Count
    status: Literal["answered", "refused", "stem_gone"]
    reason: Reason = ""
    score: float | None = None
    label: Literal["negative", "non-negative"] | None = None  # the sign of the score, zero is non-negative
    confidence: Fraction | None = None  # probability that the label is right; absent before it could be fitted
    version: Count | None = None
    tier: Literal["edge", "cloud"] = "edge"
    adapter: bool = False
    masked: tuple[Modality, ...] = ()  # that were left out, as their quality was too low; `reason` says why
    scene: tuple[NodeId, ...] = ()  # the devices whose windows were joined into this sample
    timings: Timings | None = None
    stem: Digest | None = None
    stem_size: Count = 0


class Forward(Message):
    """An edge asks the cloud's model about a window of which its own is not sure."""

    kind: ClassVar[str] = "forward"
    id: Count  # of the edge's choosing, for the answer
    stage: Stage
    stem: Digest  # of the release that the edge runs, and of an embedded window
    window: PacketWindow


class CloudAnswer(Message):
    """The cloud's answer to a `Forward`; where it has none, why."""

    kind: ClassVar[str] = "cloud_answer"
    limit: ClassVar[int] = SMALL
    zstd_level: ClassVar[int] = 0
    id: Count
    score: float | None = None
    confidence: Fraction | None = None
    version: Count | None = None
    reason: Reason = ""


class Feedback(Message):
    """A label that follows its window."""

    kind: ClassVar[str] = "feedback"
    limit: ClassVar[int] = SMALL
    epoch: Count
    seq: Count
    score: float = Field(ge=-1e6, le=1e6)


# -- learning -------------------------------------------------------------------------
class ModelPointer(Message):
    """A release by name and hash; retained. Subscribing to it is the request for the model of the paper's 3.3."""

    kind: ClassVar[str] = "model"
    family: str  # the architecture and layout that are averaged with themselves
    config: str  # ModelConfig as JSON
    version: Count
    sha256: Digest
    size: Count
    stem: Digest
    stem_size: Count
    folded: dict[NodeId, str] = {}  # by edge, the last update that this release contains
    created_at: float = 0.0


class LocalModel(ModelPointer):
    """An edge's release of the local model: a family of its own, above the stem of release `teacher`; retained."""

    kind: ClassVar[str] = "local_model"
    teacher: Count
    agreement: Fraction  # part of held-out windows on which it gives the edge's label


class RoundStart(Message):
    """An edge opens a synchronous round; a command, never retained."""

    kind: ClassVar[str] = "round"
    round: Count
    family: str
    base_version: Count
    sha256: Digest
    size: Count
    participants: tuple[NodeId, ...] = Field(max_length=4096)
    deadline: float  # seconds from now
    training: dict[str, float | int | str] = {}


class UpdateOffer(Message):
    """A model update: inline up to 128 KiB, else its hash, to be pulled from the sender."""

    kind: ClassVar[str] = "update"
    zstd_level: ClassVar[int] = 0  # int8 deltas are zstd frames already, float32 ones do not compress
    id: Digest
    family: Annotated[str, Field(max_length=128)]
    base_version: Count
    round: Count
    num_examples: dict[Annotated[str, Field(max_length=128)], Annotated[float, Field(ge=0, le=1e12)]] = Field(
        max_length=256
    )
    codec: Literal["float32", "int8"]
    sha256: Digest
    size: Count
    inline: bytes | None = Field(None, max_length=INLINE_LIMIT)
    duration: float = 0.0  # seconds of training behind it


class Verdict(Message):
    """What became of an update; repeated whenever the update is offered again."""

    kind: ClassVar[str] = "verdict"
    limit: ClassVar[int] = SMALL
    id: Digest
    accepted: bool
    reason: Reason = ""
    version: Count | None = None


# -- blobs ----------------------------------------------------------------------------
class BlobRequest(Message):
    """Ask the holder of a blob for some of its chunks."""

    kind: ClassVar[str] = "blob_request"
    limit: ClassVar[int] = SMALL
    zstd_level: ClassVar[int] = 0
    sha256: Digest
    chunks: tuple[Count, ...] = Field(min_length=1, max_length=64)


class BlobChunk(Message):
    """One chunk of a blob; `data` empty says that the holder does not offer this blob (any more)."""

    kind: ClassVar[str] = "chunk"
    zstd_level: ClassVar[int] = 0
    sha256: Digest
    index: Count
    data: bytes = Field(max_length=1 << 20)


def array(value: object, dtype: str) -> np.ndarray[Any, Any]:
    """A decoded field that must be an array of `dtype`; raises `DecodeError` for anything else."""
    if not isinstance(value, np.ndarray) or value.dtype != np.dtype(dtype):
        raise DecodeError(f"expected an array of {dtype}, got {getattr(value, 'dtype', type(value).__name__)}")
    return value
