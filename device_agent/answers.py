"""What becomes known of a window: answers of the device itself, its edge and the cloud; a later one corrects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from device_agent.local import LocalAnswer
from megace2_iot.features import Modality
from megace2_iot.messages import DeviceConfig, Policy, Prediction
from megace2_iot.telemetry import Telemetry

REMEMBERED = 4096  # local answers that an edge's may still correct


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to one window; `corrects` where an earlier one had another label."""

    seq: int
    captured_at: float  # unix s
    tier: Literal["device", "edge", "cloud"]
    score: float
    label: Literal["negative", "non-negative"]
    confidence: float | None
    version: int | None
    after: float  # s since the window was captured
    final: bool  # no other tier will be asked
    corrects: bool = False
    masked: tuple[Modality, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Listener = Callable[[Answer], None]


def label_of(score: float) -> Literal["negative", "non-negative"]:
    return "non-negative" if score >= 0 else "negative"


def goes_up(policy: Policy, local: LocalAnswer | None, config: DeviceConfig, seq: int) -> bool:
    """Whether a window is sent to the edge; pure. One without a local answer always is.

    By `confident_local` each `1 / audit`-th confident one goes up as well, so that agreement is known.
    """
    if local is None or policy in ("edge", "local_then_edge"):
        return True
    if policy == "local":
        return False
    return local.confidence < config.confidence_floor or int(seq * config.audit) != int((seq - 1) * config.audit)


class Answers:
    """One device's answers: counted by tier, compared, and told to `listener`."""

    def __init__(self, telemetry: Telemetry, listener: Listener | None = None) -> None:
        self._telemetry, self._listener = telemetry, listener
        self._provisional: OrderedDict[int, str] = OrderedDict()  # seq: the local label

    def local(self, seq: int, captured_at: float, answer: LocalAnswer, now: float, *, final: bool) -> None:
        """The device's own answer; one that is not final waits for the edge's."""
        label = label_of(answer.score)
        if not final:
            self._provisional[seq] = label
            while len(self._provisional) > REMEMBERED:
                self._provisional.popitem(last=False)
        self._telemetry.time("local_answer", answer.seconds)
        self._tell(
            Answer(
                seq,
                captured_at,
                "device",
                answer.score,
                label,
                answer.confidence,
                answer.version,
                max(0.0, now - captured_at),
                final,
            )
        )

    def remote(self, captured_at: float, prediction: Prediction, now: float) -> None:
        """An edge's or the cloud's answer."""
        if prediction.status != "answered" or prediction.score is None:
            self._provisional.pop(prediction.seq, None)
            return
        label = label_of(prediction.score)
        earlier = self._provisional.pop(prediction.seq, None)
        if earlier is not None:
            self._telemetry.count("answers_agreed" if earlier == label else "answers_corrected")
        for modality in prediction.masked:
            self._telemetry.count(f"masked_{modality}")
        self._tell(
            Answer(
                prediction.seq,
                captured_at,
                prediction.tier,
                prediction.score,
                label,
                prediction.confidence,
                prediction.version,
                max(0.0, now - captured_at),
                True,
                earlier is not None and earlier != label,
                prediction.masked,
            )
        )

    def _tell(self, answer: Answer) -> None:
        self._telemetry.count(f"answers_by_{answer.tier}")
        if self._listener is not None:
            self._listener(answer)
