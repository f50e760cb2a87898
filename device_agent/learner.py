"""The learner's process: trains the base on one device's private samples; the only part of the device with torch.

Another one runs the local model where ONNX Runtime is not installed.
"""

from __future__ import annotations

from megace2_iot.model.local import LocalTrainer
from megace2_iot.model.pocket import PocketRunner
from megace2_iot.workers import serve


def main() -> None:
    trainer, local = LocalTrainer(), PocketRunner()
    serve({"load": trainer.load, "train": trainer.train, "open": local.open, "answer": local.answer}, niceness=5)


if __name__ == "__main__":
    main()
