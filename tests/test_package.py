"""What is installed: exactly the five packages, and a command whose help fits a terminal."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from megace2_iot import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = {"megace2_iot", "device_agent", "edge_gateway", "cloud_aggregator", "broker"}


def megace2(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "megace2_iot.cli", *arguments],
        env={"COLUMNS": "80", "TERM": "dumb", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_the_wheel_holds_the_five_packages(tmp_path: Path) -> None:
    """Every module of them, and nothing else."""
    source = tmp_path / "source"
    source.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    modules = {str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert {name.split("/")[0] for name in names} == PACKAGES
    assert modules <= set(names)
    assert wheel.name.startswith(f"megace2_iot-{__version__}-")


def test_the_version_is_the_package_s() -> None:
    """One number, wherever it is asked for."""
    assert megace2("--version").strip() == __version__
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


def commands() -> list[str]:
    return sorted(
        path.stem for path in (ROOT / "megace2_iot" / "cli").glob("*.py") if "\ndef command(" in path.read_text()
    )


def test_every_command_is_listed() -> None:
    """With one line each."""
    listed = megace2("--help")
    assert [name for name in commands() if f" {name} " not in listed] == []


@pytest.mark.parametrize(
    "name", [[], *([command] for command in commands())], ids=lambda name: " ".join(name) or "megace2"
)
def test_help_fits_a_terminal(name: list[str]) -> None:
    """80 columns, and a sentence that says what it does."""
    lines = megace2(*name, "--help").splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.strip().endswith((".", "report", "it")) or "." in line for line in lines[:8])
