"""Units, the image and the scripts of deploy/ fit the commands and the package that they start."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer.main

from megace2_iot.cli.app import app
from megace2_iot.service import SECTIONS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("systemd/*.service"))
each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)


def values(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


def test_there_is_a_unit_for_each_tier():
    """Edges and devices by their ids."""
    assert [unit.name for unit in UNITS] == [
        "megace2-cloud.service",
        "megace2-device@.service",
        "megace2-edge@.service",
    ]


@each_unit
def test_what_a_unit_starts_is_a_command(unit: Path):
    """With options that it knows."""
    (line,) = values(unit, "ExecStart")
    words = line.split()
    known = {name for p in typer.main.get_command(app).commands[words[1]].params for name in p.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert words[1] in SECTIONS


@each_unit
def test_a_tier_writes_only_below_the_folder_that_is_its_own(unit: Path):
    """ProtectSystem=strict leaves no other, and two tiers on one machine have different users."""
    (folder,), (line,) = values(unit, "StateDirectory"), values(unit, "ExecStart")
    assert line.endswith(f"--state-dir %S/{folder}")
    assert "@" not in unit.name or folder.endswith("-%i")


@each_unit
def test_a_unit_is_notified_and_watched(unit: Path):
    """The three that service.py speaks, and a process that may be replaced by exec."""
    assert values(unit, "Type") == ["notify"] and values(unit, "NotifyAccess") == ["main"]
    assert values(unit, "WatchdogSec") == ["30"] and values(unit, "Restart") == ["on-failure"]


def test_only_a_device_opens_cameras_and_microphones():
    """And an edge its graphics card."""
    allowed = {unit.name: values(unit, "DeviceAllow") for unit in UNITS}
    assert allowed["megace2-device@.service"] == ["char-video4linux rw", "char-alsa rw"]
    assert all("nv" in device for device in allowed["megace2-edge@.service"])
    assert allowed["megace2-cloud.service"] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@each_unit
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path):
    """No unknown key, and little exposure."""
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/megace2/bin/megace2", shutil.which("true") or ""))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    secured = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", copy], capture_output=True, text=True
    )
    assert secured.returncode == 0, secured.stdout.splitlines()[-1]


# -- the image and the scripts --------------------------------------------------------
def test_the_image_copies_what_the_package_is_made_of():
    """A package that is missing there would be missing in the image."""
    text = (DEPLOY / "Containerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {*packages, project["project"]["readme"], *project["project"]["license-files"]} <= copied
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_is_run_by_a_user_without_rights():
    """And holds no secret: settings are mounted."""
    text = (DEPLOY / "Containerfile").read_text()
    assert text.rindex("\nUSER megace2\n") > text.rindex("\nRUN ")
    assert not re.search(
        r"^(ENV|ARG|COPY).*(PASSWORD|secret|\.toml \.)", text.replace("pyproject.toml", ""), re.MULTILINE
    )


def test_onnx_runtime_does_not_report():
    """From version 1.29 on it sends its use to its makers unless this is set before it is loaded."""
    for path in (*UNITS, DEPLOY / "Containerfile", ROOT / "megace2_iot" / "cli" / "__init__.py"):
        assert "ORT_DISABLE_TELEMETRY" in path.read_text(), path.name


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_of_the_plain_shell(script: Path):
    """A syntax error would show on somebody's machine."""
    subprocess.run(["sh", "-n", script], check=True)


def test_emulation_without_root_says_so(tmp_path: Path):
    """In one line, before anything is made."""
    fake = tmp_path / "id"
    fake.write_text("#!/bin/sh\necho 1000\n")
    fake.chmod(0o755)
    done = subprocess.run(
        ["sh", DEPLOY / "test-aarch64.sh"],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "ROOT": str(tmp_path / "root")},
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "needs root" in done.stderr
    assert not (tmp_path / "root").exists()
