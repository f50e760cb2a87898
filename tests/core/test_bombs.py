"""Bombs: a few bytes that ask for gigabytes, each decoded in one child that has no gigabyte to give."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bombs
import pytest

from edge_gateway.dedup import DedupWindow
from edge_gateway.store import EdgeStore
from megace2_iot import codec, workers
from megace2_iot.codec import DecodeError
from megace2_iot.messages import BlobRequest, GapReceipt, Health, ModelPointer, RoundStart

SHA = "ab" * 32
REFUSALS = ("DecodeError", "ValueError", "ValidationError", "PacketTooLargeError")


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[str, int]]:
    """What the child said of each bomb, and the bytes that Python took at most."""
    ended = subprocess.run([sys.executable, str(bombs.__file__)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return {name: (said, peak) for name, said, peak in map(json.loads, ended.stdout.splitlines())}


def test_each_bomb_is_refused(told: dict[str, tuple[str, int]]) -> None:
    """A stranger's message costs one exception that its reader knows, and never the process."""
    assert told.keys() == bombs.BOMBS.keys()
    assert not {name: said for name, (said, _) in told.items() if not said.startswith(REFUSALS)}


def test_no_bomb_is_unpacked_first(told: dict[str, tuple[str, int]]) -> None:
    """Limits before allocation: a nest of the longest arrays takes 32 MiB that nobody touches, all else a few MiB."""
    least = {name: 40 if "a nest of the longest" in name else 12 for name in told}
    assert not {name: peak for name, (_, peak) in told.items() if peak > least[name] << 20}


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b"\xdc\x10\x00" + b"\xc3" * 4096, 4096),
        (b"\xdd\x00\x00\x10\x00" + b"\xc3" * 4096, 4096),
        (b"\xde\x00\x02" + b"\xa1a\x01\xd9\x01b\xca1234", 4),
        (b"\xdf\x00\x00\x00\x01" + b"\xda\x00\x01a\xcb12345678", 2),
        (b"\x9d\xc0\xcc1\xcd12\xce1234\xcf12345678\xd01\xd112\xd21234\xd312345678\xff\xe0\x7f\xc2", 13),
        (b"\x97\xd41x\xd51xx\xd61xxxx\xd71" + b"x" * 8 + b"\xd81" + b"x" * 16 + b"\xc7\x011x\xc8\x00\x011x", 7),
        (b"\x95\xc4\x01x\xc5\x00\x01x\xc6\x00\x00\x00\x01x\xdb\x00\x00\x00\x01x\xc9\x00\x00\x00\x011x", 5),
    ],
)
def test_values_are_counted_as_msgpack_has_them(body: bytes, values: int) -> None:
    """Every first byte is stepped over rightly: one more value than there is room for is refused, and no other."""
    codec.count_values(memoryview(body), values + 1)  # the outermost counts too
    with pytest.raises(DecodeError, match="over"):
        codec.count_values(memoryview(body), values)


def test_bytes_are_not_made_of_a_number() -> None:
    """An edge's file of what it has seen: of a number, `bytes` would make as many zeros."""
    with pytest.raises(TypeError, match="where bytes belong"):
        DedupWindow.from_state({"epochs": [{"epoch": 1, "settled": [], "answers": [[1, 3 << 30]]}]})


def test_what_is_large_and_sound_is_taken(tmp_path: Path) -> None:
    """The longest that tiers say to each other lies within the limits."""
    nodes = tuple(f"device-{number:05}" for number in range(4096))
    pointer = ModelPointer(
        family="f",
        config="{}",
        version=2**53,
        sha256=SHA,
        size=9,
        stem=SHA,
        stem_size=9,
        folded=dict.fromkeys(nodes, SHA),
    )
    round_start = RoundStart(round=1, family="f", base_version=2, sha256=SHA, size=9, participants=nodes, deadline=5.0)
    gaps = tuple((2**53 - 2 * number - 1, 2**53 - 2 * number) for number in range(1024))
    figures = {"histograms": {f"h{n}": {"b": list(range(200)), "s": 1.0} for n in range(300)}}  # over `UNCOUNTED` bytes
    for sent in (
        pointer,
        round_start,
        GapReceipt(epoch=2**53, gaps=gaps),
        BlobRequest(sha256=SHA, chunks=tuple(range(2**53 - 64, 2**53))),
        Health(at=1.0, figures=figures, facts=dict.fromkeys(nodes, 0.5)),
    ):
        assert type(sent).decode(sent.encode()) == sent
    scores = {"scores": [0.5] * 100_000}  # what a child of ours answers
    assert codec.decode(codec.encode(scores, level=0), limit=workers.LIMIT, values=workers.VALUES) == scores
    busy = DedupWindow()
    for seq in range(0, 4000, 2):
        busy.see(1, seq)
        busy.answer(1, seq, b"x" * 500)
    EdgeStore(tmp_path).keep_dedup(dict.fromkeys(nodes[:100], busy))
    assert EdgeStore(tmp_path).dedup(64)[nodes[99]].to_state() == busy.to_state()
