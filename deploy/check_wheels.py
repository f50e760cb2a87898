#!/usr/bin/env python3
"""Has every dependency a wheel? Resolves the whole tree with pip, for each Python and machine, without installing.

    python deploy/check_wheels.py [--extras sense] [--pythons 3.11 3.12] [--machines aarch64] [--json FILE]

Prints a table and exits with 1 where something has no wheel, naming it. Needs pip 23 and a package index; pip's own
settings (index, certificates, constraints) count. Environment markers are taken for the target machine, not for this
one: pip is started in a Python that says it is the target.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("aarch64", "x86_64")
GLIBC = range(28, 4, -1)  # 2.28 and older: Debian 10, Ubuntu 20.04, the image of manylinux_2_28
PLATFORMS = (*(f"manylinux_2_{minor}" for minor in GLIBC), "manylinux2014", "manylinux2010", "manylinux1")
# packaging asks `platform` for the markers platform_machine and python_version
DISGUISE = """
import platform, runpy, sys
machine, version = sys.argv.pop(1), sys.argv.pop(1)
platform.machine = lambda: machine
platform.python_version = lambda: version + ".0"
platform.python_version_tuple = lambda: (*version.split("."), "0")
runpy.run_module("pip", run_name="__main__")
"""


@dataclass(frozen=True)
class Wheel:
    """One file that pip would fetch."""

    package: str
    version: str
    file: str

    @property
    def tags(self) -> str:
        """ "cp311-cp311-manylinux_2_28_aarch64", or "py3-none-any"."""
        return "-".join(self.file.removesuffix(".whl").split("-")[-3:])


@dataclass(frozen=True)
class Tree:
    """All wheels for one Python on one machine, or what was missing."""

    python: str
    machine: str
    wheels: tuple[Wheel, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"Python {self.python} on {self.machine}"


def requirements(project: Mapping[str, Any], extras: Iterable[str]) -> list[str]:
    """What pyproject.toml asks for: the core and some extras."""
    known = project["project"]["optional-dependencies"]
    return [*project["project"]["dependencies"], *(line for extra in extras for line in known[extra])]


def wheels_of(report: Mapping[str, Any]) -> Iterator[Wheel]:
    """What pip's installation report lists."""
    for entry in report["install"]:
        about, url = entry["metadata"], entry["download_info"]["url"]
        yield Wheel(about["name"], about["version"], url.rsplit("/", 1)[-1])


def missing_in(errors: str) -> tuple[str, ...]:
    """The requirements that pip found no wheel for; its last line where it says something else."""
    found = re.findall(r"No matching distribution found for (\S+)", errors)
    if not found:
        found = re.findall(r"^\s+(\S+ \S+ depends on .+)$", errors, re.MULTILINE)
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return tuple(dict.fromkeys(found)) or (lines[-1] if lines else "pip failed without a word",)


def resolve(asked: Sequence[str], python: str, machine: str) -> Tree:
    """One run of pip."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        options = ["install", "--dry-run", "--quiet", "--ignore-installed", "--only-binary=:all:"]
        options += ["--target", folder, "--report", str(report), "--implementation", "cp", "--python-version", python]
        for platform in PLATFORMS:
            options += ["--platform", f"{platform}_{machine}"]
        command = [sys.executable, "-c", DISGUISE, machine, python, *options, *asked]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "1000"})
        if done.returncode:
            return Tree(python, machine, missing=missing_in(done.stderr))
        found = wheels_of(json.loads(report.read_text()))
        return Tree(python, machine, tuple(sorted(found, key=lambda wheel: wheel.package.lower())))


def table(trees: Sequence[Tree]) -> str:
    """A Markdown table for each machine: package, version, and the wheel's tags for each Python."""
    parts = []
    for machine in dict.fromkeys(tree.machine for tree in trees):
        here = [tree for tree in trees if tree.machine == machine]
        lines = [f"| {machine} | " + " | ".join(f"Python {tree.python}" for tree in here) + " |"]
        lines.append("|---" * (len(here) + 1) + "|")
        found = [{wheel.package: wheel for wheel in tree.wheels} for tree in here]
        for package in sorted({name for tree in found for name in tree}, key=str.lower):
            cells = [f"{w.version} `{w.tags}`" if (w := tree.get(package)) else "" for tree in found]
            lines.append(f"| {package} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Resolve the dependency tree to wheels, for each Python and machine.")
    parser.add_argument("--extras", nargs="*", default=["sense"], help="default: sense; also torch, onnx, secure ...")
    parser.add_argument("--pythons", nargs="+", default=PYTHONS)
    parser.add_argument("--machines", nargs="+", default=MACHINES)
    parser.add_argument("--json", type=Path, help="write the wheels there, too")
    given = parser.parse_args(arguments)
    asked = requirements(tomllib.loads(PROJECT.read_text()), given.extras)
    trees = [resolve(asked, python, machine) for machine in given.machines for python in given.pythons]
    print(table(trees))
    if given.json:
        rows = {tree.name: {w.package: [w.version, w.file] for w in tree.wheels} for tree in trees}
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    for tree in trees:
        told = f"no wheel: {'; '.join(tree.missing)}" if tree.missing else f"{len(tree.wheels)} wheels, none missing"
        print(f"{tree.name}: {told}", file=sys.stderr)
    return 1 if any(tree.missing for tree in trees) else 0


if __name__ == "__main__":
    sys.exit(main())
