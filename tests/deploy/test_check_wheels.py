"""What is read of pip's report and of its refusals; the network part is the command itself."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ERRORS = """\
ERROR: Could not find a version that satisfies the requirement linuxpy>=99 (from versions: 0.19.0, 0.25.0)
ERROR: No matching distribution found for linuxpy>=99
"""


@pytest.fixture(scope="module")
def wheels():
    spec = importlib.util.spec_from_file_location("check_wheels", ROOT / "deploy" / "check_wheels.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def entry(name, version, file):
    return {"metadata": {"name": name, "version": version}, "download_info": {"url": f"https://index.invalid/a/{file}"}}


REPORT = {
    "install": [
        entry("av", "18.1.0", "av-18.1.0-cp311-abi3-manylinux_2_28_aarch64.whl"),
        entry("linuxpy", "0.25.0", "linuxpy-0.25.0-py3-none-any.whl"),
    ]
}


def test_a_report_lists_wheels(wheels):
    """Each with its version, and with the tags that say where it runs."""
    found = list(wheels.wheels_of(REPORT))
    assert [(wheel.package, wheel.version, wheel.tags) for wheel in found] == [
        ("av", "18.1.0", "cp311-abi3-manylinux_2_28_aarch64"),
        ("linuxpy", "0.25.0", "py3-none-any"),
    ]


def test_the_table_has_a_column_for_each_python(wheels):
    """A package that only one of them needs leaves the others empty."""
    both = tuple(wheels.wheels_of(REPORT))
    trees = [wheels.Tree("3.11", "aarch64", both), wheels.Tree("3.12", "aarch64", both[:1])]
    lines = wheels.table(trees).splitlines()
    assert lines[0] == "| aarch64 | Python 3.11 | Python 3.12 |"
    assert lines[-1] == "| linuxpy | 0.25.0 `py3-none-any` |  |"


@pytest.mark.parametrize(
    ("errors", "missing"),
    [
        (ERRORS, ("linuxpy>=99",)),
        ("ERROR: Cannot install\n    av 14.0 depends on numpy<2\n", ("av 14.0 depends on numpy<2",)),
        ("ERROR: no route to the index\n", ("ERROR: no route to the index",)),
        ("", ("pip failed without a word",)),
    ],
)
def test_what_has_no_wheel_is_named(wheels, errors, missing):
    """The line that a person needs out of pip's many."""
    assert wheels.missing_in(errors) == missing


def test_it_asks_for_what_the_package_asks_for(wheels):
    """The core, and the extras by name."""
    project = {
        "project": {"dependencies": ["a>=1"], "optional-dependencies": {"sense": ["av>=14"], "torch": ["torch"]}}
    }
    assert wheels.requirements(project, ["sense"]) == ["a>=1", "av>=14"]


def test_a_missing_wheel_is_a_failure(wheels, monkeypatch, capsys):
    """Its status is for CI, its words for people."""
    monkeypatch.setattr(wheels, "resolve", lambda asked, python, machine: wheels.Tree(python, machine, (), ("av>=14",)))
    assert wheels.main(["--pythons", "3.11", "--machines", "aarch64"]) == 1
    assert "Python 3.11 on aarch64: no wheel: av>=14" in capsys.readouterr().err
