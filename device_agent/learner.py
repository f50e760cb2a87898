"""The learner's process: trains the base on one device's private samples; the only part of the device with torch."""

from __future__ import annotations

from megace2_iot.model.local import LocalTrainer
from megace2_iot.workers import serve


def main() -> None:
    trainer = LocalTrainer()
    serve({"load": trainer.load, "train": trainer.train}, niceness=5)


if __name__ == "__main__":
    main()
