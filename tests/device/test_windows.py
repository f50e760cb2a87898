"""Windows on their way: records of the outbox, packets of the wire, and a replay's clock."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from tiers import corpus

from device_agent.sources import duration, replay, timeline, window_of
from device_agent.windows import Window, embed, from_record, to_packet_window, to_record
from megace2_iot.features import Features
from megace2_iot.quantize import Quantized, dequantize
from megace2_iot.stem import Stem

STEM = Stem.random({"text": 24, "audio": 12, "vision": 10}, 16, 0)


def test_a_record_keeps_everything() -> None:
    """What the outbox holds is what was captured, bit for bit."""
    window = replace(window_of(corpus(1)[0]), quality={"snr": 3.5}, extraction=0.25, truth=1.0, stem="a" * 64)
    back = from_record(to_record(window))
    for name in ("captured_at", "label", "truth", "group", "quality", "extraction", "stem", "features_saw_label"):
        assert getattr(back, name) == getattr(window, name)
    for modality, features in window.features.items():
        assert np.array_equal(back.features[modality].values, features.values)
        assert (back.features[modality].rate, back.features[modality].start) == (features.rate, features.start)


def test_a_packet_holds_its_features_within_the_bound() -> None:
    """2 % of each channel's range, on what is sent."""
    sample = corpus(1)[0]
    packed = to_packet_window(window_of(sample), 1, stem=None, relative_bound=0.02, share_label=False)
    for modality, fields in packed.sequences.items():
        values = sample.features[modality].values
        error = np.abs(dequantize(Quantized.from_fields(fields)) - values).max(axis=0)
        assert (error <= 0.02 * np.ptp(values, axis=0) + 1e-6).all()


@pytest.mark.parametrize("share", [False, True])
def test_a_label_and_its_group_leave_together_or_not_at_all(share: bool) -> None:
    """The name of a recording may tell who was recorded; the truth never leaves."""
    window = replace(window_of(corpus(1)[0]), truth=2.5)
    packed = to_packet_window(window, 1, stem=None, relative_bound=0.02, share_label=share)
    assert (packed.score, packed.group) == ((window.label, window.group) if share else (None, ""))
    assert "2.5" not in repr(packed.model_dump(exclude={"sequences"}))


def test_what_was_embedded_is_not_embedded_again() -> None:
    """A recorded stream of Z[0] goes out as it is."""
    z = np.ones((3, 16), np.float32)
    assert np.array_equal(embed(Window({"text": Features(z)}, stem="a" * 64), STEM)["text"], z)
    assert embed(Window({"text": Features(np.ones((3, 24), np.float32))}), STEM)["text"].shape == (3, 16)


def test_test_rows_carry_no_label() -> None:
    """A train row's score may train, a test row's is only compared with."""
    train, test = corpus(1)[0], corpus(1, split="test")[0]
    assert (window_of(train).label, window_of(train).truth) == (train.score, None)
    assert (window_of(test).label, window_of(test).truth) == (None, test.score)
    assert "vision" not in window_of(train, ["vision"]).features


def test_groups_follow_each_other() -> None:
    """Each on its own clock, in the order given, with a pause between."""
    first, second = corpus(3, site=0), corpus(3, site=1)
    due = [at for at, _ in timeline([*first, *second])]
    assert due == sorted(due)
    assert due[0] == 0.0
    assert due[3] == pytest.approx(due[2] + 1.0)
    assert duration([*first, *second]) == due[-1]
    assert duration([]) == 0.0


async def test_a_replay_keeps_the_time() -> None:
    """At twenty times the speed it takes a twentieth of the time; each window is captured when it is due."""
    samples, began = corpus(4), time.time()
    captured = [window.captured_at - began async for window in replay(samples, 20.0)]
    wanted = [at / 20.0 for at, _ in timeline(samples)]
    assert all(wish - 0.01 <= at < wish + 0.5 for at, wish in zip(captured, wanted, strict=True))
