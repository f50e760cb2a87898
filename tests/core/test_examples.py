"""Training data on their way to a child process."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megace2_iot.codec import decode, encode
from megace2_iot.examples import pack, unpack

lengths = st.fixed_dictionaries({}, optional={m: st.integers(1, 4) for m in ("text", "audio", "vision")})


@given(st.lists(lengths, max_size=6))
def test_packed_samples_come_back(shapes: list[dict[str, int]]) -> None:
    """Whichever modalities each has, and through the envelope; samples without any are possible among others."""
    rng = np.random.default_rng(0)
    samples = [{m: rng.standard_normal((t, 3)).astype(np.float32) for m, t in shape.items()} for shape in shapes]
    back = unpack(decode(encode(pack(samples))))
    assert len(back) == (len(samples) if any(shapes) else 0)
    for before, after in zip(samples, back, strict=False):
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[m], after[m]) for m in before)
