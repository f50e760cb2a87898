"""What an edge does with gaps: counts them by reason, and says that it knows only once they are on its disk."""

from __future__ import annotations

from typing import Any

import pytest

from edge_gateway import gaps as module
from edge_gateway.dedup import DedupWindow
from edge_gateway.devices import DeviceRecord
from edge_gateway.gaps import Gaps
from megace2_iot.messages import FeaturePacket, Gap, GapReceipt
from megace2_iot.telemetry import Telemetry


class Replies:
    """In their place: what would be said to devices."""

    def __init__(self) -> None:
        self.said: list[tuple[str, GapReceipt]] = []

    def put(self, device: str, status: str, payload: bytes, kind: str) -> None:
        assert (status, kind) == ("gap_receipt", "gap_receipt")
        self.said.append((device, GapReceipt.decode(payload)))


@pytest.fixture
def parts() -> tuple[Gaps, Replies, Telemetry, DeviceRecord]:
    replies: Any = Replies()
    telemetry = Telemetry()
    return Gaps(replies, telemetry), replies, telemetry, DeviceRecord("cam", DedupWindow())


def packet(*gaps: Gap, epoch: int = 1, settled: int = 0) -> FeaturePacket:
    return FeaturePacket(device="cam", epoch=epoch, sent_at=0.0, stage="features", gaps=gaps, settled=settled)


def test_each_reason_has_its_counter(parts: Any) -> None:
    """What a device answered itself is not shed, a crash's seqs are no windows, and a strange word makes no counter."""
    gaps, _, telemetry, record = parts
    gaps.take(record, packet(Gap(first=1, last=9, shed={"full": 2, "kept": 3, "aliens": 4})))
    gaps.take(record, packet(Gap(first=10, last=2000, shed={"restart": 1991})))
    assert telemetry.counters == {
        "windows_shed_told_full": 2,
        "windows_kept_told": 3,
        "windows_shed_told_other": 4,
        "seqs_left_out": 1991,
    }


def test_receipts_follow_the_disk(parts: Any) -> None:
    """Once, each gap by its ends; of an epoch that began anew only its own."""
    gaps, replies, _, record = parts
    gaps.take(record, packet(Gap(first=1, last=2)))
    gaps.take(record, packet(Gap(first=7, last=7)))
    assert not replies.said
    gaps.send_receipts()
    gaps.send_receipts()
    assert replies.said == [("cam", GapReceipt(epoch=1, gaps=((1, 2), (7, 7))))]
    gaps.take(record, packet(Gap(first=9, last=9)))
    gaps.take(record, packet(Gap(first=1, last=1), epoch=2))
    gaps.send_receipts()
    assert replies.said[1:] == [("cam", GapReceipt(epoch=2, gaps=((1, 1),)))]


def test_receipts_are_bounded(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that tells more between two of them tells the rest again."""
    monkeypatch.setattr(module, "MOST", 2)
    gaps, replies, _, record = parts
    gaps.take(record, packet(*(Gap(first=seq, last=seq) for seq in (1, 3, 5))))
    gaps.send_receipts()
    assert replies.said[0][1].gaps == ((1, 1), (3, 3))


def test_what_is_missing_is_counted_and_said(parts: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It should never happen: a line in the log, too."""
    gaps, _, telemetry, record = parts
    record.dedup.settle(1, 1, 0)
    gaps.take(record, packet(Gap(first=1, last=1), settled=4))
    assert (telemetry.counters["windows_missing"], record.dedup.missing) == (2, 2)
    assert "cam: 2 windows are missing" in caplog.text


@pytest.mark.parametrize("fields", [{"first": 2, "last": 1}, {"first": -1, "last": 1}, {"first": 1}])
def test_a_gap_that_makes_no_sense_is_refused(fields: dict[str, int]) -> None:
    """With its packet, as every message that cannot be read."""
    with pytest.raises(ValueError):
        Gap.model_validate(fields)
