"""What devices say they will not send: counted, so that shed is told from lost, and receipted once it is on disk."""

from __future__ import annotations

import logging

from edge_gateway.devices import DeviceRecord
from edge_gateway.replies import Replies
from megace2_iot.messages import FeaturePacket, GapReceipt
from megace2_iot.telemetry import Telemetry

_log = logging.getLogger("megace2.intake")
MOST = 1024  # gaps in a receipt, and of a device that wait for theirs: more are told again
SHED = ("full", "expired", "link", "dropped", "damaged", "oversized", "unreadable", "disk")
OTHERS = {"kept": "windows_kept_told", "restart": "seqs_left_out"}  # answered by the device itself; of no window


class Gaps:
    """One edge's."""

    def __init__(self, replies: Replies, telemetry: Telemetry) -> None:
        self._replies, self._telemetry = replies, telemetry
        self._unreceipted: dict[str, tuple[int, list[tuple[int, int]]]] = {}  # device: epoch, gaps

    def take(self, record: DeviceRecord, packet: FeaturePacket) -> None:
        """Take a packet's gaps, and judge what its device says is settled."""
        for gap in packet.gaps:
            for reason, count in record.dedup.tell(packet.epoch, gap).items():
                name = f"windows_shed_told_{reason if reason in SHED else 'other'}"
                self._telemetry.count(OTHERS.get(reason, name), count)
            self._owe(record.id, packet.epoch, (gap.first, gap.last))
        live = max((window.seq for window in packet.windows), default=None) if not packet.replayed else None
        if missing := record.dedup.settle(packet.epoch, packet.settled, live):
            self._telemetry.count("windows_missing", missing)
            _log.warning("%s: %d windows are missing: neither answered nor shed", record.id, missing)

    def _owe(self, device: str, epoch: int, gap: tuple[int, int]) -> None:
        known, gaps = self._unreceipted.get(device, (epoch, []))
        if known != epoch:
            gaps = []
        if len(gaps) < MOST:
            gaps.append(gap)
        self._unreceipted[device] = epoch, gaps

    def send_receipts(self) -> None:
        """All that was taken is on the disk."""
        owed, self._unreceipted = self._unreceipted, {}
        for device, (epoch, gaps) in owed.items():
            receipt = GapReceipt(epoch=epoch, gaps=tuple(gaps))
            self._replies.put(device, "gap_receipt", receipt.encode(), receipt.kind)
