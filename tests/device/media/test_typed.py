"""Words that arrive as bytes."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.media.chunks import Losses, Words
from device_agent.media.lines import MAX_LINE, LineCutter
from device_agent.media.typed import typed_lines, typed_words


@given(st.lists(st.binary(max_size=40).filter(lambda b: b"\n" not in b), max_size=8), st.integers(1, 50))
def test_lines_do_not_depend_on_how_bytes_come(lines: list[bytes], size: int) -> None:
    """A pipe cuts where it likes."""
    data = b"".join(line + b"\n" for line in lines)
    cutter = LineCutter(Losses())
    made = [line for at in range(0, len(data), size) for line in cutter.push(data[at : at + size])]
    assert made + cutter.end() == lines


def test_a_line_of_any_length_is_held_in_bounds() -> None:
    """Whoever pipes a film into standard input does not fill the memory."""
    losses = Losses()
    cutter = LineCutter(losses, limit=100)
    for _ in range(10_000):
        assert cutter.push(b"word " * 20) == []
    assert cutter.push(b"\nshort\n") == [b"word " * 19 + b"word", b"short"]
    assert losses.counts == {"text_cut": 1}


def test_ten_thousand_words_are_one_line() -> None:
    """Nobody types so, but programs do."""
    losses = Losses()
    words = typed_words("очень ".encode() * 10_000, 3.0, losses)
    assert words is not None
    assert len(words.text.split()) == 10_000
    assert not losses.counts


def test_more_than_the_bound_is_cut_at_a_word() -> None:
    """A payload is bounded as a line is."""
    losses = Losses()
    words = typed_words(b"wonderful " * (MAX_LINE // 10 + 50), 3.0, losses)
    assert words is not None
    assert set(words.text.split()) == {"wonderful"}
    assert losses.counts == {"text_cut": 1}


@pytest.mark.parametrize(
    ("payload", "text", "errors"),
    [
        (b"very good", "very good", 0),
        (b"\xff\xfe\xfd", "\ufffd", 1),
        (b"caf\xe9 noir", "caf\ufffd noir", 1),
        (b"", None, 0),
    ],
)
def test_a_payload_becomes_words(payload: bytes, text: str | None, errors: int) -> None:
    """Of its arrival; what does not decode is replaced and counted, and nothing is no words."""
    losses = Losses()
    words = typed_words(payload, 7.5, losses)
    assert words == (None if text is None else Words(text, 7.5, 7.5))
    assert losses.counts.get("text_errors", 0) == errors


async def test_lines_of_a_pipe_arrive_as_they_are_written() -> None:
    """Not when a buffer is full; the last needs no line end."""
    reading, writing = os.pipe()
    began = time.monotonic() - 10
    os.write(writing, b"how are you\n\n")
    async with aclosing(typed_lines(began, Losses(), reading)) as lines:
        words, arrived = await anext(lines)
        assert words.text == "how are you"
        assert words.start == words.end == pytest.approx(arrived - began)
        assert words.start > 10
        os.write(writing, b"fine\nthan")
        assert (await anext(lines))[0].text == "fine"
        os.write(writing, b"ks")
        os.close(writing)
        assert [words.text async for words, _ in lines] == ["thanks"]
    assert os.get_blocking(reading)
    os.close(reading)


async def test_waiting_for_a_line_can_be_cancelled() -> None:
    """The agent stops although nobody types."""
    reading, writing = os.pipe()
    lines = typed_lines(0.0, Losses(), reading)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(lines), 0.05)
    os.close(writing)
    os.close(reading)


@pytest.mark.parametrize("text", ["one\ntwo\n", ""])
async def test_a_file_may_stand_for_standard_input(tmp_path: Path, text: str) -> None:
    """`megace2 sense < words.txt`: no event loop waits for a file."""
    (tmp_path / "words.txt").write_text(text)
    descriptor = os.open(tmp_path / "words.txt", os.O_RDONLY)
    assert [words.text async for words, _ in typed_lines(0.0, Losses(), descriptor)] == text.split()
    os.close(descriptor)


async def test_a_service_without_input_just_ends() -> None:
    """systemd gives /dev/null, which no event loop waits for either."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    assert [words async for words, _ in typed_lines(0.0, Losses(), descriptor)] == []
    os.close(descriptor)


async def test_a_terminal_is_a_source() -> None:
    """A line at a time, and its flags stay as they were: standard output has the same."""
    controller, terminal = os.openpty()
    os.write(controller, b"typed by hand\n")
    async with aclosing(typed_lines(0.0, Losses(), terminal)) as lines:
        assert (await anext(lines))[0].text == "typed by hand"
    assert os.get_blocking(terminal)
    os.close(controller)
    os.close(terminal)
