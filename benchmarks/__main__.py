"""`python -m benchmarks [NAME ...] [--json FILE]`: run some benchmarks or all, print their tables."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks.rows import Row, machine, show

NAMES = (
    "broker",
    "packet",
    "compression",
    "sensing",
    "endurance",
    "aggregate",
    "federation",
    "model",
    "serving",
    "training",
    "device",
    "outbox",
    "intake",
    "saturated",
    "latency",
    "release",
    "bulk",
    "clusters",
    "security",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.names if name not in NAMES]:
        parser.error(f"no benchmark {unknown[0]!r}: choose of {', '.join(NAMES)}")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as `megace2` does; no benchmark is imported yet
    console = Console(width=None if sys.stdout.isatty() else 150)
    facts = machine()
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), style="dim")
    found: dict[str, list[Row]] = {}
    for name in chosen.names or NAMES:
        began, load = time.monotonic(), os.getloadavg()[0]
        module = importlib.import_module(f"benchmarks.{name}")
        found[name] = module.measure()
        took = f"{time.monotonic() - began:.0f} s, load before {load:.1f}"
        show(console, f"{name}: {(module.__doc__ or '').splitlines()[0]} ({took})", found[name])
    missed = [f"{name}: {row.what}" for name, rows in found.items() for row in rows if row.met is False]
    console.print("Every target is met." if not missed else "Missed:\n  " + "\n  ".join(missed), highlight=False)
    if chosen.json:
        rows = {name: [row.to_json() for row in rows] for name, rows in found.items()}
        chosen.json.write_text(json.dumps({"machine": facts, "benchmarks": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
