"""The learner's process: trains the base on one device's private samples; the only part of the device with torch.

Its argument is JSON: the bounds that training keeps within. Another one, without bounds as somebody waits for its
answers, runs the local model where ONNX Runtime is not installed.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any

from megace2_iot.model.local import LocalTrainer
from megace2_iot.model.pocket import PocketRunner
from megace2_iot.workers import serve

NICENESS = 15  # sensing, and everything else of the machine, goes first


def keep_within(memory: int, cores: int) -> None:
    """Bound this process's data (bytes) and cores, and let everything else go first."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[-cores:])
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # a long job: it never takes the core from a short one


def main() -> None:
    trains = len(sys.argv) > 1
    if trains and sys.platform == "linux":
        keep_within(**json.loads(sys.argv[1]))
    trainer, local = LocalTrainer(), PocketRunner()
    tasks: dict[str, Callable[..., Mapping[str, Any]]] = {"load": trainer.load, "train": trainer.train}
    if not trains:
        tasks = {"open": local.open, "answer": local.answer}
    serve(tasks, niceness=NICENESS if trains else 0)


if __name__ == "__main__":
    main()
