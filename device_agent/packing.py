"""From windows and gaps to the bytes of a packet, as the edge's configuration wants them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from device_agent.compression import Choice
from device_agent.noise import new_secret
from device_agent.windows import Window, to_packet_window
from megace2_iot.messages import DeviceConfig, FeaturePacket, Gap, PacketWindow
from megace2_iot.stem import Stem


class Packer:
    """One device's; `noise` as `noise.noisy` takes it."""

    def __init__(self, device: str, epoch: int, noise: float) -> None:
        self._device, self._epoch, self._noise, self._secret = device, epoch, noise, new_secret()
        self.config: DeviceConfig | None = None
        self._stem: Stem | None = None
        self._stem_id: str | None = None

    def configure(self, config: DeviceConfig, stem: Stem | None) -> None:
        """Pack by `config` from now on; `stem` is its stem where windows go out embedded."""
        self.config, self._stem, self._stem_id = config, stem, config.stem

    def stem_gone(self, newest: str | None) -> None:
        """The edge has another stem: embedded windows wait for the configuration that names it."""
        if newest != self._stem_id:
            self._stem = None

    def ready(self) -> DeviceConfig | None:
        """The configuration, where packets can be made by it."""
        config = self.config
        return config if config is not None and (config.stage == "features" or self._stem is not None) else None

    def pack(
        self,
        opened: Sequence[tuple[int, Window]],
        gaps: Sequence[Gap],
        choice: Choice | None,
        *,
        settled: int,
        live: bool,
        shares_label: Callable[[Window, int], bool],
    ) -> bytes:
        """A packet of windows of one stem, each with its seq, and gaps; `choice` is how to code windows."""
        config = self.config
        assert config is not None
        embedded = self._stem_id if config.stage == "embedded" else None
        stem = (opened[0][1].stem if opened else None) or embedded
        packet = FeaturePacket(
            device=self._device,
            epoch=self._epoch,
            sent_at=time.time(),
            stage="features" if stem is None else "embedded",
            stem=stem,
            replayed=not live,
            windows=tuple(self._window(seq, window, choice, shares_label(window, seq)) for seq, window in opened),
            gaps=tuple(gaps),
            settled=settled,
        )
        return packet.encode(level=None if choice is None else choice.zstd_level)

    def _window(self, seq: int, window: Window, choice: Choice | None, share_label: bool) -> PacketWindow:
        assert choice is not None
        assert self.config is not None
        return to_packet_window(
            window,
            seq,
            stem=self._stem if self.config.stage == "embedded" else None,
            relative_bound=choice.relative_bound,
            share_label=share_label,
            factor=choice.thin,
            noise=self._noise,
            secret=self._secret,
        )
