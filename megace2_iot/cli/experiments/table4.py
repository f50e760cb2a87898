"""Table 4 of the paper: parts of the model, alone."""

from __future__ import annotations

from megace2_iot.cli.experiments.report import Report
from megace2_iot.cli.experiments.request import Request
from megace2_iot.cli.experiments.tables import run_table
from megace2_iot.features import MODALITIES
from megace2_iot.model.runs import MEGACE2

TITLE = "Table 4: ablation"
ARMS = {
    "text_only": "text only",
    "audio_only": "audio only",
    "vision_only": "video only",
    "to_text": "only V,A->L",
    "to_vision": "only L,A->V",
    "to_audio": "only L,V->A",
    MEGACE2: "Mega-CE2",
}
PUBLISHED = {
    "text_only": (79.4, 50.2, 0.583),
    "audio_only": (65.6, 48.6, 0.664),
    "vision_only": (66.4, 48.3, 0.659),
    "to_text": (82.1, 52.6, 0.575),
    "to_vision": (79.7, 52.1, 0.611),
    "to_audio": (79.2, 51.4, 0.620),
    MEGACE2: (86.6, 59.7, 0.514),
}
NEEDS = {
    **{f"{modality}_only": (modality,) for modality in MODALITIES},
    **{f"to_{modality}": MODALITIES for modality in MODALITIES},
}
NOTES = [
    "The paper's figures are on MOSEI, and its last row is the federated model; ours is trained in one place "
    "(docs/readings.md 24 and 25)."
]


def run(request: Request) -> Report:
    """Each part with every seed."""
    return run_table("table4", TITLE, request, ARMS, PUBLISHED, NOTES, NEEDS)
