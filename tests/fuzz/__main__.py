"""`python -m tests.fuzz --seconds 60 [--target NAME] [--seed N]`: fuzz every decoder of untrusted bytes.

The work is done in a child under a limit of memory, which notes each input before it runs it: what kills it is found
too. Findings are written to the corpus, smaller than they were found, and the command then ends with status 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import logging
import mmap
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.fuzzer import LARGEST, Campaign, Finding, MiB
from tests.fuzz.targets import targets

CORPUS = Path(__file__).with_name("corpus")
ROOM = 768 * MiB  # of address space that the child may add to what its imports took
STUCK = 120.0  # s more than planned for a target, after which the child ends itself


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--executions", type=int, help="of each target, in place of --seconds")
    parser.add_argument("--target", action="append", help="may be repeated; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        return _work(chosen)
    with tempfile.TemporaryDirectory(prefix="megace2-fuzz-") as name:
        return _watch(chosen, Path(name))


# -- the parent -------------------------------------------------------------------------
def _watch(chosen: argparse.Namespace, scratch: Path) -> int:
    """Run the child; where it dies, what it died of is a finding."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz", *sys.argv[1:], "--child", str(scratch)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        findings = sum(_tell(json.loads(line)) for line in child.stdout)
    if child.returncode:
        last, name = (scratch / "last").read_bytes(), (scratch / "target").read_text()
        data = last[8 : 8 + int.from_bytes(last[:8], "little")]
        findings += _tell({"finding": "ends the process", "target": name, "data": data.hex()})
    return 1 if findings else 0


def _tell(line: dict[str, Any]) -> int:
    """Print a line of the child; 1 for a finding, which goes to the corpus too."""
    if "finding" not in line:
        print("{target:24} {executions:>9,} executions {rate:>8,.0f}/s {answers:>4} answers".format(**line), flush=True)
        return 0
    data = bytes.fromhex(line["data"])
    folder = CORPUS / line["target"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    print(f"{line['target']}: {line['finding']}\n    {len(data)} bytes in {path}: {data[:40].hex()}", flush=True)
    return 1


# -- the child --------------------------------------------------------------------------
def _work(chosen: argparse.Namespace) -> int:
    logging.disable(logging.WARNING)
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None  # a generator that is left behind finds its database closed
    every = targets(chosen.child)
    if unknown := set(chosen.target or ()) - {target.name for target in every}:
        raise SystemExit(f"no target {', '.join(unknown)}: there are {', '.join(t.name for t in every)}")
    _limit_memory()
    note = _notes(chosen.child / "last")
    wanted = [target for target in every if not chosen.target or target.name in chosen.target]
    for target in wanted:
        (chosen.child / "target").write_text(target.name)
        campaign, began = Campaign(target, kept(target.name), chosen.seed, note), time.monotonic()
        faulthandler.dump_traceback_later(chosen.seconds + STUCK, exit=True)  # even inside of a library in C
        for finding in _findings(campaign, chosen, chosen.seconds / len(wanted)):
            _say(finding=finding.how, target=target.name, data=finding.data.hex())
        rate = campaign.executions / (time.monotonic() - began)
        _say(target=target.name, executions=campaign.executions, rate=rate, answers=campaign.answers)
    return 0


def _findings(campaign: Campaign, chosen: argparse.Namespace, seconds: float) -> Iterator[Finding]:
    end = time.monotonic() + seconds
    yield from campaign.replay()
    while campaign.executions < chosen.executions if chosen.executions else time.monotonic() < end:
        yield from campaign.step()


def kept(target: str) -> list[bytes]:
    """The corpus of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / target).glob("*"))]


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _notes(path: Path) -> Callable[[bytes], None]:
    """Writes an input where it survives this process."""
    path.write_bytes(bytes(8 + LARGEST))
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)

    def note(data: bytes) -> None:
        data = data[:LARGEST]
        memory[: 8 + len(data)] = len(data).to_bytes(8, "little") + data

    return note


def _say(**line: object) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
