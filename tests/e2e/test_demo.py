"""`megace2 demo` without a terminal: it ends by itself, or at Ctrl-C, and its report has every figure."""

import asyncio
import json
import signal
from pathlib import Path

import pytest
from tiers import command, process, until

pytestmark = pytest.mark.slow
SHORT = ("demo", "--devices", "2", "--edges", "2", "--speed", "60")
FIGURES = {
    "command": None,
    "seed": None,
    "versions": None,
    "tiers": None,
    "packets": {"sent", "answered", "refused", "shed", "duplicates", "rejected"},
    "packet_bytes": {"p50", "max", "raw_float32_p50", "pickle_p50"},
    "latency_ms": {"generation", "transmission", "queue", "inference", "result", "end_to_end"},
    "accuracy": {"first", "last", "majority", "ridge", "by_version"},
    "edges": {"edge-1", "edge-2"},
    "rounds": {"closed", "late", "abandoned"},
    "releases": None,
    "bytes": {"up", "down"},
}


def check(report: dict, folder: Path) -> None:
    """Every key of the documented report, figures that are not empty, and nothing lost."""
    for key, inner in FIGURES.items():
        assert key in report
        assert inner is None or inner <= report[key].keys(), key
    assert report["packets"]["answered"] > 0
    assert report["packets"]["shed"] == report["packets"]["rejected"] == report["packets"]["refused"] == 0
    assert all({"p50", "p95", "p99"} <= stage.keys() for stage in report["latency_ms"].values())
    assert all({"base", "adapter", "gate"} <= edge.keys() for edge in report["edges"].values())
    assert report["accuracy"]["by_version"][0][0] == 1
    assert (folder / "report.md").stat().st_size > 500
    assert json.loads((folder / "report.json").read_text()) == report


async def test_a_short_demo_reports_by_itself(tmp_path):
    """`--json` prints the report on standard output, as the last line."""
    status, printed = await command(*SHORT, "--seconds", "16", "--out", str(tmp_path), "--json", seconds=100)
    assert status == 0, printed
    report = json.loads(printed.splitlines()[-1])
    (folder,) = tmp_path.iterdir()
    check(report, folder)
    assert report["rounds"]["closed"] > 0
    assert report["releases"] > 1


@pytest.mark.parametrize("run_broker", ["mosquitto"], indirect=True)  # skipped where there is none
async def test_ctrl_c_ends_a_demo_with_the_report_so_far(run_broker, tmp_path):
    """On a Mosquitto, and without a terminal, where it prints plain lines; no process of it stays behind."""
    more = ("--seconds", "120", "--out", str(tmp_path), "--broker", "mosquitto")
    async with process(*SHORT, *more) as demo:
        await until(lambda: any("answered" in line and "version" in line for line in demo.said), 60)
        demo.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            assert await demo.wait() == 0, "".join(demo.said)
        (folder,) = tmp_path.iterdir()
        check(json.loads((folder / "report.json").read_text()), folder)
        assert "Traceback" not in "".join(demo.said)
    assert not left_behind(folder)


def left_behind(folder: Path) -> list[str]:
    """Processes that name this run."""
    commands = []
    for process_folder in Path("/proc").glob("[0-9]*"):
        try:
            commands.append((process_folder / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    return [line for line in commands if str(folder) in line]
