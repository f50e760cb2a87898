"""The `megace2` command: one file a command, each imported when it is asked for by name or by --help."""

from __future__ import annotations

import os
import sys

from megace2_iot.problems import Problem

INTERRUPTED = 130  # status of a program that Ctrl-C ended


def main() -> None:
    """Entry point of `megace2`."""
    # numpy's products are small here: more threads only spin, on the cores that the model needs; torch has its own
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # from 1.29 on ONNX Runtime reports its use to its makers
    try:
        from megace2_iot.cli.app import app

        app()
    except Problem as problem:
        print(f"megace2: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # while a command is still being imported; later typer says so
        sys.exit(INTERRUPTED)
