"""From sound to feature rows, whatever the pieces in which it comes.

A row covers `step` s and is made of the mean power of its frames, 25 ms every 10 ms, and of pieces of 64 ms for the
pitch, so it looks ahead by what the last of them needs: 15 ms at the default step, 44 ms at the shortest.

| columns | what | scaled |
|---|---|---|
| 0-39 | log power in 40 mel bands, 60-8000 Hz | (ln(p + 1e-10) + 10.5) / 5 |
| 40-52 | 13 MFCC: the orthonormal DCT of columns 0-39 | by `CEPSTRUM_SCALE` |
| 53-65 | their differences to the row before | as they are |
| 66, 67 | level in dB rms, and its difference | (x + 35) / 20, and twice that |
| 68, 69 | octaves of pitch above 50 Hz, 0 where unvoiced; their difference, 0 unless both rows are voiced | twice |
| 70 | voicing strength 0..1 | as it is |
| 71 | zero crossings, part of the samples | 5 times |
| 72 | spectral centroid in Hz | x / 2000 - 1 |
| 73 | spectral flatness, ln of the geometric by the arithmetic mean of power | (x + 4) / 2 |

The constants are rounded means and deviations of a few public recordings of speech at usual levels; silence is -2.5 in
columns 0-39. Differences look back and not around: a row would otherwise wait for the next ones.
"""

from __future__ import annotations

import numpy as np

from device_agent.extraction.framing import Block, Framing, Layout
from device_agent.extraction.pitch import WINDOW, pitch
from device_agent.extraction.rows import Array, Rows
from device_agent.extraction.spectrum import BINS, FFT, FRAME, SAMPLE_RATE, cepstra, mel_energies, power_spectra
from device_agent.extraction.voice import Room
from device_agent.media.chunks import Chunk, Sound
from megace2_iot.features import Modality
from megace2_iot.problems import Problem

DIM = 74
CEPSTRUM_SCALE = np.array([6.3, 2.5, 1, 1, 0.65, 0.6, 0.55, 0.4, 0.4, 0.35, 0.3, 0.25, 0.25], np.float32)
CHANGE_SCALE = np.array([1] * 13 + [2, 2], np.float32)
_TINY = 1e-10  # power at -100 dB
_BIN_HERTZ = (np.arange(BINS) * SAMPLE_RATE / FFT).astype(np.float32)


class AudioExtractor:
    """Rows of 74 numbers at `rate` Hz, 5 to 50, from 16 kHz mono.

    `observed`: `level` dB rms, `clipped` part of the samples, `speech` 0 or 1, and `noise`, the room's level in dB.
    """

    modality: Modality = "audio"
    dim = DIM

    def __init__(self, rate: float = 12.5) -> None:
        if not 5 <= rate <= 50:
            raise Problem(f"audio_rate {rate:g}: set it between 5 and 50 rows a second")
        self._layout = Layout.at(rate)
        self.step = self._layout.step / SAMPLE_RATE
        self._new()

    def push(self, chunk: Chunk) -> Rows | None:
        if not isinstance(chunk, Sound):
            return None
        return _joined([self._rows(block) for block in self._framing.push(chunk)])

    def flush(self) -> Rows | None:
        rows = _joined([self._rows(block) for block in self._framing.flush()])
        self._new()
        return rows

    def _new(self) -> None:
        self._framing = Framing(self._layout)
        self._room = Room(self.step)
        self._before: Array | None = None  # (15,) of the row before: what differences are taken of

    def _rows(self, block: Block) -> Rows:
        own, clipped = block.own(self._layout)
        own = own - own.mean(axis=1, keepdims=True)  # cheap microphones have an offset
        levels = 10 * np.log10(np.square(own).mean(axis=1) + _TINY)
        power = power_spectra(block.windows(self._layout, self._layout.frames, FRAME))
        hertz, strengths = pitch(block.windows(self._layout, self._layout.pieces, WINDOW))
        rooms, speech = self._room.hear(levels, strengths)
        log_mel = (np.log(mel_energies(power) + _TINY) + 10.5) / 5
        octaves = np.log2(np.maximum(hertz, 50.0) / 50.0)
        moving = np.column_stack([cepstra(log_mel) / CEPSTRUM_SCALE, (levels + 35) / 20, octaves])
        changes = self._changes(moving, block.is_first)
        crossings = 5 * (np.diff(own >= 0, axis=1)).mean(axis=1)
        still = np.column_stack([strengths, crossings, *_shape(power)])
        ordered = [part[:, columns] for columns in (slice(13), 13, 14) for part in (moving, changes)]
        values = np.column_stack([log_mel, *ordered, still]).astype(np.float32)
        observed = {"level": levels, "clipped": clipped.mean(axis=1), "speech": speech, "noise": rooms}
        return Rows(values, block.times, self.step, {name: x.astype(np.float32) for name, x in observed.items()})

    def _changes(self, moving: Array, is_first: bool) -> Array:
        """Differences (R, 15) of each row to the one before, scaled; of the pitch, where both are voiced."""
        before = moving[:1] if is_first or self._before is None else self._before[None]
        self._before = moving[-1]
        together = np.concatenate([before, moving])
        changes: Array = np.diff(together, axis=0) * CHANGE_SCALE
        changes[:, 14] *= (together[1:, 14] > 0) & (together[:-1, 14] > 0)
        return changes


def _shape(power: Array) -> tuple[Array, Array]:
    """Centroid (R,) and flatness (R,), scaled, of spectra (R, 257); silence is flat."""
    floored = power + np.float32(_TINY)
    mean = floored.mean(axis=1)
    centroid = (floored * _BIN_HERTZ).mean(axis=1) / mean
    flatness = np.log(floored).mean(axis=1) - np.log(mean)
    return centroid / 2000 - 1, (flatness + 4) / 2


def _joined(parts: list[Rows]) -> Rows | None:
    return Rows.join(parts) if parts else None
