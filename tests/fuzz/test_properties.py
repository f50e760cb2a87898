"""What decoders promise of every value, not of bytes alone: round trips, and maps of ours with a stranger's values."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.lab.enrolment import JoinString
from broker.packets import V5, V311
from edge_gateway.dedup import DedupWindow
from megace2_iot import codec
from megace2_iot.codec import DecodeError
from megace2_iot.messages import Gap, Message
from megace2_iot.model.config import ModelConfig
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.problems import Problem
from megace2_iot.service import Settings
from megace2_iot.stem import Stem
from tests.fuzz import seeds, sockets

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9)
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)
JSON = st.integers(-1, 2**40) | st.floats() | st.text(max_size=3) | st.none() | st.lists(st.integers(), max_size=2)
SERVED = {websocket: sockets.served(websocket=websocket) for websocket in (False, True)}
SHAPES = st.lists(st.integers(0, 3), max_size=4)
CALMLY = settings(deadline=None)  # on a machine that is busy, too
KINDS = pytest.mark.parametrize("sound", seeds.MESSAGES, ids=lambda message: message.kind)


@KINDS
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_message_with_a_strangers_values_is_taken_or_refused(sound: Message, data: st.DataObject) -> None:
    """Right names and wrong values: they pass msgpack's limits, and every check behind them must hold."""
    fields = sound.model_dump()
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3)):
        fields[name] = data.draw(VALUES)
    with contextlib.suppress(DecodeError):
        taken = type(sound).decode(codec.encode(fields))
        assert type(sound).decode(taken.encode()).encode() == taken.encode()


def values_of(value: Any) -> int:
    """How many values msgpack holds for this one."""
    match value:
        case dict():
            return 1 + sum(1 + values_of(inner) for inner in value.values())
        case list():
            return 1 + sum(map(values_of, value))
    return 1


@CALMLY
@given(VALUES)
def test_values_are_counted_exactly(value: Any) -> None:
    """The count steps over every coding that msgpack has; one less than there are is too few."""
    body, count = memoryview(msgpack.packb(value)), values_of(value)
    codec.count_values(body, count)
    with pytest.raises(DecodeError):
        codec.count_values(body, count - 1)


@CALMLY
@given(st.binary(max_size=60), st.integers(1, 60))
def test_damaged_bodies_are_counted_to_an_end(body: bytes, most: int) -> None:
    """Whatever the bytes, the count ends, and never accepts what msgpack then finds to hold more."""
    try:
        codec.count_values(memoryview(body), most)
    except DecodeError:
        return
    with contextlib.suppress(ValueError, msgpack.UnpackException, RecursionError, TypeError):
        assert values_of(msgpack.unpackb(body, raw=True, strict_map_key=False)) <= most


@CALMLY
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2000), st.booleans()), max_size=40))
def test_what_an_edge_has_seen_comes_back(steps: list[tuple[int, int, bool]]) -> None:
    """The file says all that counts: written, read and written again it is the same."""
    window = DedupWindow(4)
    for epoch, seq, answered in steps:
        window.see(epoch, seq)
        if answered:
            window.answer(epoch, seq, b"answer")
        else:
            window.tell(epoch, Gap(first=seq, last=seq + 2, shed={"full": 3}))
    state = codec.decode(codec.encode({"x": window.to_state()}))["x"]
    assert DedupWindow.from_state(state, 4).to_state() == window.to_state()


@CALMLY
@given(VALUES)
def test_what_no_edge_wrote_is_refused(value: Any) -> None:
    """Only the exceptions that the store knows."""
    inner = {"epoch": 1, "settled": value, "answers": value}
    for state in (value, {"epochs": value}, {"epochs": [value]}, {"epochs": [inner]}):
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError):
            DedupWindow.from_state(state, 4)


@CALMLY
@given(
    st.sampled_from(["10.0.0.2", "broker.local", "fe80::1"]),
    st.integers(1, 65_535),
    st.text("abcdefghijklmnop-_0123456789", min_size=1, max_size=24),
)
def test_a_join_string_comes_back(host: str, port: int, token: str) -> None:
    """What is copied to a new node is what was said."""
    said = JoinString(host=host, port=port, id="cam-1", authority=seeds.SHA, token=token)
    assert JoinString.parse(f" {said}\n") == said


@CALMLY
@given(data=st.data())
def test_a_model_config_with_a_strangers_values_is_refused(data: st.DataObject) -> None:
    """A pointer's config is built by: whatever is in it, a model comes of it or a ValueError."""
    fields = {
        "dims": {"text": 3, "audio": 2, "vision": 2},
        "kernels": {"text": 1, "audio": 1, "vision": 1},
        "preset": "nano",
        "width": 2,
    }
    fields |= {"heads": 1, "layers": 1, "memory_layers": 1, "ffn_ratio": 1, "dropouts": {}, "residual": "preln"}
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(JSON)
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from(["text", "attention", "x"]))
        fields[data.draw(st.sampled_from(["dims", "kernels", "dropouts"]))] = {name: data.draw(JSON)}
    with contextlib.suppress(ValueError):
        config = ModelConfig.from_json(json.dumps(fields))
        if config._size() < 100_000:
            CrossModalTransformer(config)


@CALMLY
@given(st.lists(st.tuples(st.sampled_from(["stem.text", "stem.audio", "stem.table"]), SHAPES)))
def test_tensors_of_any_shape_are_a_stem_or_none(shapes: list[tuple[str, list[int]]]) -> None:
    """What a release calls its stem: a stem whose widths agree, or a ValueError."""
    with contextlib.suppress(ValueError):
        stem = Stem.from_tensors({name: np.ones(shape, np.float32) for name, shape in shapes})
        for modality, dim in stem.dims.items():
            with contextlib.suppress(ValueError):  # a kernel of no steps
                assert stem.embed(modality, np.ones((3, dim), np.float32)).shape == (3, stem.width)


@CALMLY
@given(st.binary(max_size=80))
def test_settings_of_any_bytes_are_read_or_explained(data: bytes) -> None:
    """A file that is no TOML is a sentence for its owner."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Problem):
        path = Path(folder) / "megace2.toml"
        path.write_bytes(data)
        Settings(path)


@pytest.mark.parametrize("websocket", [False, True])
@CALMLY
@given(data=st.data())
def test_any_order_of_packets_ends_well(websocket: bool, data: st.DataObject) -> None:
    """Sound packets in a senseless order: no exception, no error in the log, no connection left behind."""
    version = data.draw(st.sampled_from([V311, V5]))
    chosen = data.draw(
        st.lists(st.sampled_from([one for one in seeds.broker_packets(version) if len(one) < 126]), max_size=8)
    )
    if websocket:
        chosen = [seeds.frame(data.draw(st.sampled_from([0, 1, 2, 2, 2, 8, 9, 10])), one) for one in chosen]
    end = data.draw(st.binary(max_size=6))
    SERVED[websocket]((seeds.UPGRADE if websocket else b"") + b"".join(chosen) + end)
