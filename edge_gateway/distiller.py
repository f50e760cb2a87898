"""The process that makes the local model: fits a pocket of the edge's model to the edge's answers, and exports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from edge_gateway.calibration import calibrate
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig
from megace2_iot.model.local import to_examples, training_settings
from megace2_iot.model.pocket import DISTILLING, compare, distil, graph_of, pocket, release_of
from megace2_iot.problems import Problem
from megace2_iot.workers import serve


class Distiller:
    """Holds one local model, which goes on learning from release to release while the architecture stays."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._model: CrossModalTransformer | None = None
        self._graph = b""

    def distil(
        self,
        config: str,
        fit: Mapping[str, Any],
        fit_scores: Sequence[float],
        gate: Mapping[str, Any],
        gate_scores: Sequence[float],
        settings: Mapping[str, Any],
        seed: int,
    ) -> dict[str, Any]:
        """Learn from the edge's answers to `fit` (packed Z[0]), compare on `gate`; the release and its likeness.

        `config` is the edge's model's. Raises `Problem` where the export is not installed.
        """
        wanted = pocket(ModelConfig.from_json(config))
        if self._model is None or self._model.config != wanted:
            self._model, self._graph = CrossModalTransformer.seeded(wanted, 0), b""
        examples, held_out = to_examples(fit, fit_scores), to_examples(gate, gate_scores)
        distil(self._model, examples, training_settings({**DISTILLED, **settings}), seed)
        likeness, scores = compare(self._model, held_out)
        calibration = calibrate(scores, np.asarray(gate_scores))
        try:
            self._graph = self._graph or graph_of(self._model)
        except ImportError as error:
            raise Problem(f"the local model cannot be exported: pip install 'megace2-iot[onnx]' ({error})") from None
        return {
            "release": release_of(self._model, self._graph, likeness, calibration),
            "family": self._model.family,
            "config": self._model.config.to_json(),
            "agreement": likeness.agreement,
            "mae": likeness.mae,
        }


DISTILLED = {"learning_rate": DISTILLING.learning_rate, "epochs": DISTILLING.epochs, "loss": DISTILLING.loss}


def main() -> None:
    serve({"distil": Distiller().distil}, niceness=10)


if __name__ == "__main__":
    main()
