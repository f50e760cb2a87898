"""Messages: pairs of encode and decode, and clear words for what does not fit."""

import numpy as np
import pytest

from megace2_iot.codec import DecodeError, encode
from megace2_iot.messages import BlobChunk, DeviceProfile, FeaturePacket, PacketWindow, Prediction, State
from megace2_iot.quantize import Quantized, dequantize, quantize

SHA = "ab" * 32


def packet(values: np.ndarray) -> FeaturePacket:
    window = PacketWindow(seq=7, captured_at=1.5, sequences={"text": quantize(values, 0.02).to_fields()}, score=-1.0)
    return FeaturePacket(device="cam-1", epoch=3, sent_at=2.0, stage="embedded", stem=SHA, windows=(window,))


def test_a_packet_survives_the_wire():
    """What the edge reads is what the device quantised."""
    values = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    back = FeaturePacket.decode(packet(values).encode())
    restored = dequantize(Quantized.from_fields(back.windows[0].sequences["text"]))
    assert np.abs(restored - values).max() <= 0.02 * np.ptp(values, axis=0).max()
    assert back.windows[0].score == -1.0


def test_an_unknown_key_is_refused():
    """A newer node's field must not be dropped in silence."""
    data = encode({"state": "online", "session": 1, "role": "device", "mood": "good"})
    with pytest.raises(DecodeError, match="mood"):
        State.decode(data)


def test_numbers_that_are_not_finite_are_refused():
    """NaN in a score would poison every mean it enters."""
    good = Prediction(epoch=1, seq=1, status="answered", score=0.5)
    data = encode({**good.model_dump(), "score": float("nan")})
    with pytest.raises(DecodeError, match="score"):
        Prediction.decode(data)


@pytest.mark.parametrize("device", ["Cam", "a/b", ""])
def test_a_packet_of_an_impossible_device_is_refused(device: str):
    """Ids end up in topics."""
    data = encode({**packet(np.zeros((1, 1), np.float32)).model_dump(), "device": device})
    with pytest.raises(DecodeError, match="device"):
        FeaturePacket.decode(data)


def test_an_unknown_modality_is_refused():
    """Only text, audio and vision have encoders."""
    with pytest.raises(DecodeError, match="dims"):
        DeviceProfile.decode(encode({"dims": {"smell": 3}}))


def test_a_chunk_costs_little_more_than_its_data():
    """A 50 MB model is 770 of these."""
    assert len(BlobChunk(sha256=SHA, index=1, data=bytes(65_536)).encode()) < 65_536 + 120
