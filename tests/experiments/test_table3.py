"""Table 3: its statistics, the bounds of its cells, what it shows, its link, and one tiny run of both arms."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from megace2_iot.cli.app import app
from megace2_iot.cli.experiments import latency_notes, latency_tables, page, table3
from megace2_iot.cli.experiments.clips import RawClip, digest, folder_of, raw_clips
from megace2_iot.cli.experiments.latency import LONGEST, Cell, cells, fullness, per_clip, plan, quantile, seconds, times
from megace2_iot.cli.experiments.link import ShapedLink
from megace2_iot.cli.experiments.report import _fitting
from megace2_iot.cli.experiments.request import Link
from megace2_iot.cli.experiments.uploads import RawChunk, Uploads, chunks_of
from megace2_iot.codec import DecodeError


def result(first: list[float | None], *, up: int = 3000, mean: float = 0.01) -> dict[str, Any]:
    """A cell's result: first answers (None: cut), full ones a tenth later."""
    clips: list[dict[str, Any]] = [
        {"first": f, "full": None if f is None else f + 0.1, "t_gen": mean, "payload": up} for f in first
    ]
    cut = sum(f is None for f in first)
    figures = {"bytes_up": up * len(first), "bytes_down": 100, "lasted": 2.0, "limit": 9.0}
    return {"clips": clips, "cut": cut, "local": True, "broker": "a broker", "load_before": 0.5, **figures}


SITE = {cell.name: cell for cell in cells([20.0, 1.0], [1, 10])}
EXTRACTION = {"generation": [0.05, 0.06], "load_before": 0.4}
TRAINING = {"round": 0.8, "cloud": 0.5, "round_up": 1000, "round_down": 5000, "devices": 2, "windows": 32}


def test_cut_clips_count_as_longer_than_all() -> None:
    """Protects medians of cells that were cut: nothing is left out because it was slow."""
    assert quantile([0.3, 0.1, 0.2], 0.5) == 0.2
    assert quantile([0.3, None, 0.2, None], 0.5) == 0.3
    assert quantile([0.3, None, None], 0.5) is None
    assert quantile([], 0.5) is None


def test_a_cell_is_as_long_as_its_raw_media_need() -> None:
    """At least one clip of each user, as many as fit, and never longer than the bound."""
    quick = plan(Cell("cloud", 100.0, 1), 400_000, 0.1, 2, seconds=20, rounds=18)
    slow = plan(Cell("cloud", 1.0, 50), 400_000, 0.1, 2, seconds=20, rounds=18)
    assert quick.rounds == 18
    assert (slow.rounds, slow.limit) == (1, LONGEST)
    assert plan(Cell("edge", 1.0, 50), 400_000, 0.1, 2, seconds=20, rounds=18) == slow
    assert plan(Cell("cloud", 100.0, 50), 400_000, 1.0, 2, seconds=20, rounds=18).rounds == 1  # extraction bounds it


def test_bytes_and_fullness_are_of_the_link() -> None:
    """All that crossed it, over the clips that were answered."""
    found = result([0.1, 0.2, None])
    assert per_clip(found, "up") == 4500
    assert fullness(found, 0.036) == pytest.approx(1.0)
    assert per_clip(result([None]), "up") is None


def test_figures_are_short_and_say_what_was_cut() -> None:
    """A bound is no figure."""
    assert [seconds(value) for value in (0.01234, 0.5, 12.34, None)] == ["0.0123", "0.500", "12.3", "-"]
    assert seconds(None, 240.0) == "> 240"
    assert times(0.1, 0.5) == "5.0"
    assert times(0.1, 5.0) == "50"
    assert times(0.1, None, at_least=9.0) == "> 90"
    assert times(None, 1.0, at_least=9.0) == "-"


def test_the_papers_figures_stand_as_published() -> None:
    """Table 3 and the sizes of section 4.2.2, to the digit."""
    paper = latency_tables.PUBLISHED
    assert paper["t_gen"] == ("0.0450", "-")
    assert (paper["t_trans"], paper["t_trans_raw"]) == (("0.0001", "-"), ("-", "1.7500"))
    assert paper["t_infer"] == ("3.2086", "1.3821")
    assert paper["t_trans_score"] == ("0.0001", "0.0001")
    assert paper["end to end"] == ("0.0452", "3.1322")
    rows = {str(row["metric"]): row for row in latency_tables.phases(None, None, None)}
    assert rows["end to end"]["paper cloud"] == "3.1322"
    assert rows["queue"]["paper edge"] == "-"


def test_the_tables_fit_a_terminal_of_80_columns() -> None:
    """Every column of every table, with the widest cells that come out."""
    wide = {cell.name: cell for cell in cells([100.0, 20.0], [1, 50])}
    results: dict[str, Any] = {name: result([12.345, None, None]) for name in wide} | {"training": TRAINING}
    for part in latency_tables.tables_of(wide, results):
        shown = {column: [page.show(row.get(column)) for row in part.rows] for column in part.columns}
        assert _fitting(shown, 80) == list(part.columns)


def test_the_aims_are_told_with_what_came_out() -> None:
    """At 20 Mbit/s, with every number of users, whatever it is; and what was cut is a bound."""
    results: dict[str, Any] = {"extraction": EXTRACTION, "training": TRAINING}
    for name, cell in SITE.items():
        results[name] = result([0.1] if cell.arm == "edge" else [0.9], up=3000 if cell.arm == "edge" else 300_000)
    results[Cell("cloud", 20.0, 10).name] = result([None], up=300_000)
    settings = {"delay": 0.01, "cloud_delay": 0.0, "cores": 2, "replayed": False}
    notes = latency_notes.notes_of(SITE, results, settings, 300_000.0, 2)
    assert "with 1 user 9.0 times sooner (full answer 5.0), 100 times fewer bytes" in notes[1]
    assert "with 10 users > 90 times sooner" in notes[1]
    assert any("docs/readings.md 18" in note for note in notes)
    assert latency_notes.notes_of(SITE, {}, settings, 1.0, 2) == []


def test_a_clip_is_whole_once_all_chunks_are_there() -> None:
    """In whatever order, twice or not; what fits no clip is refused."""
    files = {".mp4": bytes(range(256)) * 600, ".txt": b"so good"}
    chunks = [RawChunk.decode(chunk.encode()) for chunk in chunks_of(3, files)]
    assert len(chunks) == 4
    uploads = Uploads()
    assert all(uploads.add("user-1", chunk) is None for chunk in [chunks[2], chunks[0], chunks[0], chunks[3]])
    assert uploads.add("user-2", chunks[1]) is None
    assert uploads.add("user-1", chunks[1]) == files
    with pytest.raises(DecodeError, match="fits no clip"):
        uploads.add("user-2", chunks[1].model_copy(update={"index": 4}))


def test_clips_of_a_folder_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their bytes, by suffix; the digest is of them; without a folder they are made."""
    (tmp_path / "a.txt").write_text("so good")
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (found,) = raw_clips(tmp_path)
    assert found.files == {".txt": b"so good", ".wav": b"RIFF"}
    assert digest([found]) != digest([RawClip("a", {".txt": b"so bad", ".wav": b"RIFF"})])
    monkeypatch.delenv("MEGACE2_DATA", raising=False)
    made = raw_clips(folder_of(None, tmp_path / "made"), 1)
    assert set(made[0].files) == {".txt", ".mp4"}
    assert raw_clips(folder_of(None, tmp_path / "made"), 1)[0].files == made[0].files  # not encoded again


@contextlib.asynccontextmanager
async def sink() -> AsyncIterator[tuple[int, asyncio.Queue[int]]]:
    """A server that says how many bytes it got, each time."""
    got: asyncio.Queue[int] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionResetError):  # the link closes what is open
            while data := await reader.read(65536):
                got.put_nowait(len(data))
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], got
    finally:
        server.close()
        await server.wait_closed()


async def test_a_shared_link_gives_all_connections_together_its_rate() -> None:
    """Two users of one uplink of 8 Mbit/s are no faster than one, within a tenth; a busy machine is a slow link."""
    loop, size, rates = asyncio.get_running_loop(), 250_000, list[float]()
    async with sink() as (port, got), ShapedLink(port, 8e6, shared=True) as link:
        writers = [(await asyncio.open_connection("127.0.0.1", link.port))[1] for _ in range(2)]
        for turn in range(1, 4):
            began = loop.time()
            for writer in writers:
                writer.write(bytes(size))
            while link.bytes_up < 2 * size * turn:
                await got.get()
            rates.append(2 * size * 8 / (loop.time() - began))
        assert max(rates) == pytest.approx(8e6, rel=0.1)
        for writer in writers:
            writer.close()


async def test_an_idle_link_takes_a_packet_its_whole_time() -> None:
    """Protects small packets from being flattered: 5 kB at 1 Mbit/s are 40 ms, and 50 ms more of delay."""
    loop, taken = asyncio.get_running_loop(), list[float]()
    async with sink() as (port, got), ShapedLink(port, 1e6, 0.05, shared=True) as link:
        _, writer = await asyncio.open_connection("127.0.0.1", link.port)
        for _ in range(5):
            await asyncio.sleep(0.1)
            began = loop.time()
            writer.write(bytes(5000))
            await got.get()
            taken.append(loop.time() - began)
        assert min(taken) == pytest.approx(0.09, rel=0.1)
        assert min(taken) >= 0.09
        writer.close()


def test_lists_of_the_command_line_are_checked() -> None:
    """What cannot be meant is told before anything runs."""
    for arguments, why in ((["--rates", "5,x"], "numbers with commas"), (["--rates", "0"], "above 0 Mbit/s")):
        outcome = CliRunner().invoke(app, ["experiment", "table3", *arguments])
        assert why in str(outcome.exception)
    with pytest.raises(ValueError, match="from 1 to"):
        Link(users=(0,))


@pytest.mark.slow
def test_both_arms_answer_every_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two users with generated clips over a fast link: every phase is measured, and a second time nothing runs."""
    monkeypatch.delenv("MEGACE2_DATA", raising=False)
    monkeypatch.setattr(table3, "QUICK_CLIPS", 2)
    monkeypatch.setattr(table3, "QUICK_ROUNDS", 2)
    monkeypatch.setattr(table3.Comparison, "arms", property(lambda self: ["extraction", *self.cells]))
    monkeypatch.setattr("megace2_iot.cli.experiments.cell.opener", lambda: None)  # a local model takes its time
    run = ["experiment", "table3", "--quick", "--rates", "200", "--users", "2", "--out", str(tmp_path), "--json"]
    outcome = CliRunner().invoke(app, run, catch_exceptions=False)
    report = json.loads(outcome.stdout.splitlines()[-1])
    assert report["runs"] == report["runs_wanted"] == 3
    rows = {row["metric"]: row for row in report["rows"]}
    for arm, parts in (("edge p50", ("t_gen", "t_infer")), ("cloud p50", ("t_trans_raw", "t_infer"))):
        assert all(float(rows["first answer"][arm]) >= float(rows[part][arm]) > 0 for part in parts)
    assert all(rows[name]["cloud p95"] != "-" for name in ("t_gen", "t_trans_raw", "queue", "t_infer"))
    assert report["more"][1]["rows"][0]["clips"] == "4"
    assert "Answers of every cell" in (tmp_path / "table3.md").read_text()
    again = CliRunner().invoke(app, [*run, "--show"], catch_exceptions=False)
    assert json.loads(again.stdout.splitlines()[-1])["rows"] == report["rows"]
