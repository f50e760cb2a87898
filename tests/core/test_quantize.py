"""The adaptive codec: its bound holds for whatever is finite, its bytes are few, and strangers get one exception."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from megace2_iot import codec
from megace2_iot.quantize import DIFFERENCE, FLOAT16, FLOAT32, INTEGER, Quantized, dequantize, quantize

EXTREMES = [0.0, -0.0, 1e-45, -1e-40, 3.4e38, -3.4e38, 65504.0, 65520.0, 1.0, float(np.float32(1 + 2**-23))]
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from(EXTREMES)
BOUNDS = st.sampled_from([0.0, 1e-6, 1e-3, 0.004, 0.02, 0.1, 0.5])
SEEDS = st.integers(0, 2**32 - 1)


def over_the_wire(values, relative_bound):
    """What the other side decodes from the envelope's bytes."""
    sent = codec.encode({"x": quantize(values, relative_bound).to_fields()})
    return dequantize(Quantized.from_fields(codec.decode(sent)["x"]))


def assert_within(values, relative_bound):
    decoded = over_the_wire(values, relative_bound)
    assert decoded.shape == values.shape
    assert decoded.dtype == np.float32
    if values.size:
        exact = values.astype(np.float64)
        allowed = relative_bound * (exact.max(axis=0) - exact.min(axis=0))
        assert (np.abs(decoded - exact) <= allowed).all()


def walk(rng, steps, channels, memory):
    """A (steps, channels) sequence whose neighbours correlate by `memory`, each channel with its own scale."""
    x = rng.standard_normal((steps, channels)).astype(np.float32)
    for t in range(1, steps):
        x[t] = memory * x[t - 1] + (1 - memory**2) ** 0.5 * x[t]
    return (x * rng.uniform(0.1, 5, channels) + rng.normal(0, 2, channels)).astype(np.float32)


@settings(max_examples=300, deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 12), st.integers(0, 6)), elements=FINITE), BOUNDS)
def test_the_bound_holds_for_any_finite_values(values, relative_bound):
    """No denormal, overflow or huge offset may break what the configuration promises."""
    assert_within(values, relative_bound)


@settings(max_examples=200, deadline=None)
@given(SEEDS, st.floats(-30, 30), st.floats(-20, 20), st.integers(1, 60), st.integers(1, 8), BOUNDS)
def test_the_bound_holds_for_noise_on_any_offset(seed, offset, scale, steps, channels, relative_bound):
    """A sensor's offset may be far larger than its signal."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((steps, channels)) * 2.0**scale
    assert_within((noise + 2.0**offset * rng.integers(-1, 2, channels)).astype(np.float32), relative_bound)


@pytest.mark.parametrize("value", [0.0, 7.7, -1e30, 1e-45, 3.4e38])
def test_a_constant_channel_is_exact(value):
    """Its range is 0, so the bound leaves no room for an error."""
    values = np.full((5, 3), value, np.float32)
    assert (over_the_wire(values, 0.02) == values).all()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 4)])
def test_empty_and_single_step_sequences_keep_their_shape(shape):
    """A window may hold no step of a modality, and one step has no range."""
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    assert (over_the_wire(values, 0.02) == values).all()


def test_each_channel_gets_the_cheapest_coding_that_fits():
    """Adaptive is per channel: one difficult channel must not make the others expensive."""
    time = np.arange(64, dtype=np.float32)
    fine = np.float32(1e6) + np.resize([0, 0.0625, 0.125, 0.25], 64).astype(np.float32)
    values = np.stack([(7 * time) % 11, np.sin(time / 20), np.full(64, 0.5), np.full(64, 0.1), fine], axis=1)
    codings = quantize(values.astype(np.float32), 0.02).codings
    assert codings.tolist() == [INTEGER, DIFFERENCE, FLOAT16, FLOAT32, FLOAT32]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_channel(bad):
    """The owner of a broken sensor needs to know which one it is."""
    values = np.zeros((4, 5), np.float32)
    values[2, 3] = bad
    with pytest.raises(ValueError, match="channel 3"):
        quantize(values, 0.02)


@pytest.mark.parametrize("relative_bound", [-0.1, 0.51, float("nan")])
def test_an_impossible_bound_is_refused(relative_bound):
    """A bound that is NaN would hold for nothing and be noticed nowhere."""
    with pytest.raises(ValueError, match="bound"):
        quantize(np.zeros((2, 2), np.float32), relative_bound)


@pytest.mark.parametrize("memory", [0.0, 0.9])
@pytest.mark.parametrize(("widths", "most"), [((300, 74, 35), 14_000), ((40, 40, 40), 5_000)])
def test_a_window_is_small_on_the_wire(memory, widths, most):
    """50 steps at 2 % of the range: the sizes that the transmission figures rest on, envelope included."""
    rng = np.random.default_rng(0)
    fields = {str(m): quantize(walk(rng, 50, width, memory), 0.02).to_fields() for m, width in enumerate(widths)}
    assert len(codec.encode(fields)) <= most


JUNK = [None, -1, 5, 1 << 40, "x", b"abc", [1, 2], {}, 1.5, True]
JUNK_ARRAYS = st.tuples(
    st.sampled_from([np.uint8, np.uint16, np.int16, np.float16, np.float32]),
    st.sampled_from([(), (0,), (6,), (7,), (0, 20), (6, 20), (20, 6)]),
    st.sampled_from([0, 1, 2, 3, 9, 255]),
).map(lambda made: np.full(made[1], made[2], made[0]))
JUNK_FIELDS = st.dictionaries(st.sampled_from("Tcsoqhf"), st.sampled_from(JUNK) | JUNK_ARRAYS, min_size=1, max_size=4)


@settings(max_examples=500, deadline=None)
@given(JUNK_FIELDS, SEEDS)
def test_fields_of_a_stranger_decode_or_raise_value_error(junk, seed):
    """An edge decodes what anybody sends: one exception, and never a value that is not finite."""
    sound = quantize(np.random.default_rng(seed).standard_normal((20, 6)).astype(np.float32), 0.02).to_fields()
    try:
        decoded = dequantize(Quantized.from_fields({**sound, **junk}))
    except ValueError:
        return
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("scale", [0x7F80, 0xFFFF, 0x7F7F, 0xBF80])
def test_a_step_that_no_encoder_makes_is_refused(scale):
    """Infinity, NaN and what overflows would travel on into the model and the labelled store."""
    fields = quantize(np.eye(8, dtype=np.float32) + np.arange(8, dtype=np.float32)[:, None], 0.02).to_fields()
    with pytest.raises(ValueError, match="step"):
        Quantized.from_fields({**fields, "s": np.full_like(fields["s"], scale)})
