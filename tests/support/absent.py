"""What a test does without a program that it needs."""

from __future__ import annotations

import os
import shutil

import pytest


def skip_or_fail(reason: str) -> None:
    """A user's machine may lack something; CI's may not."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must not skip these tests")
    pytest.skip(reason)


def program(name: str, package: str) -> str:
    """Its path."""
    found = shutil.which(name)
    if found is None:
        skip_or_fail(f"{name} is not installed (apt install {package})")
    return found or ""
