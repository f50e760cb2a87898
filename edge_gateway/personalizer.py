"""The edge's own training, in a child process: its part in rounds, its adapter (eq. 5), the gate, the confidence.

The gate lets the adapter answer where it beats the base on the half of the labelled store that neither has seen. It is
`blind` where that half is too small, or where its features were fitted on the labels themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_gateway.calibration import calibrate
from megace2_iot.model.adapter import Adapter, adapter_tensors, detach
from megace2_iot.model.evaluation import answer
from megace2_iot.model.local import LocalTrainer, to_examples, training_settings
from megace2_iot.model.training import Example, fine_tune
from megace2_iot.workers import serve

MIN_GATE = 24  # held-out samples below which nothing can be judged


class Personalizer(LocalTrainer):
    """`load` and `train` of `LocalTrainer`, and `personalise`."""

    def personalise(
        self,
        fit: Mapping[str, Any],
        fit_scores: Sequence[float],
        gate: Mapping[str, Any],
        gate_scores: Sequence[float],
        placement: str,
        settings: Mapping[str, Any],
        seed: int,
    ) -> dict[str, Any]:
        """Fine-tune a new adapter over the loaded base and judge it; `gate` without samples makes it blind.

        It begins anew for each release: one that goes on from the last drifts with it (docs/experiments.md).
        """
        if self.model is None:
            raise ValueError("no base was loaded")
        training, judging = to_examples(fit, fit_scores), to_examples(gate, gate_scores)
        chosen: Any = placement
        personal = Adapter(self.model.config, chosen, seed)
        fine_tune(self.model, personal, training, training_settings(settings), seed)
        try:
            return {"adapter": adapter_tensors(personal), **self._judge(judging)}
        finally:
            detach(self.model)

    def _judge(self, judging: list[Example]) -> dict[str, Any]:
        """Both accuracies on held-out samples, with the adapter attached at first."""
        assert self.model is not None
        if len(judging) < MIN_GATE:
            return {"gate": "blind", "reason": f"{len(judging)} held-out samples, {MIN_GATE} are needed"}
        truth = np.array([example.score for example in judging])
        with_adapter = answer(self.model, judging)
        detach(self.model)
        without = answer(self.model, judging)
        better = _hits(with_adapter, truth) > _hits(without, truth)
        calibration = calibrate(with_adapter if better else without, truth)
        return {
            "gate": "adapter" if better else "base",
            "reason": f"on {len(judging)} held-out samples",
            "base_accuracy": _hits(without, truth),
            "adapter_accuracy": _hits(with_adapter, truth),
            "calibration": list(calibration),
        }


def _hits(scores: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    return float(np.mean((scores >= 0) == (truth >= 0)))


def main() -> None:
    personalizer = Personalizer()
    serve({"load": personalizer.load, "train": personalizer.train, "personalise": personalizer.personalise}, niceness=5)


if __name__ == "__main__":
    main()
