"""Every decoder of untrusted bytes, fuzzed for a moment in a child under a limit of memory; the corpus first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXECUTIONS = 100  # of each target


def test_no_decoder_breaks_its_contract() -> None:
    """Protects every tier: only declared exceptions, bounded time and memory, whatever the bytes."""
    command = [sys.executable, "-m", "tests.fuzz", "--executions", str(EXECUTIONS)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = [line for line in ended.stdout.splitlines() if "executions" in line]
    assert sum(int(line.split()[1].replace(",", "")) for line in lines) >= EXECUTIONS * len(lines) > 20 * EXECUTIONS


def test_the_corpus_is_small() -> None:
    """It is read at each run and travels with the source."""
    assert sum(path.stat().st_size for path in (ROOT / "tests/fuzz/corpus").glob("*/*")) < 300_000
