"""Bytes that are meant to be text, in whatever encoding they came."""

from __future__ import annotations

import codecs

from device_agent.media.chunks import Losses

SPEAKING_RATE = 2.5  # words a second: text of unknown length is taken to be spoken as people speak
MARKS = (  # of byte order; the longer first, as UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decoded(data: bytes, losses: Losses) -> str:
    """One line, single spaces, of UTF-8 or what a byte order mark says; what does not decode is U+FFFD, counted."""
    mark, encoding = next((pair for pair in MARKS if data.startswith(pair[0])), (b"", "utf-8"))
    data = data[len(mark) :]
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        losses.count("text_errors")
        text = data.decode(encoding, errors="replace")
    return " ".join(text.replace("\0", " ").split())


def cut(data: bytes, limit: int, losses: Losses) -> bytes:
    """At most `limit` bytes, up to the end of a word where words are set apart; a cut is counted (`text_cut`)."""
    if len(data) <= limit:
        return data
    losses.count("text_cut")
    whole, _, _ = data[:limit].rpartition(b" ")
    return whole or data[:limit]


def speaking_time(text: str) -> float:
    """Seconds that saying it takes."""
    return len(text.split()) / SPEAKING_RATE
