"""Table 1 of the paper: methods compared on CMU-MOSI."""

from __future__ import annotations

from megace2_iot.cli.experiments.report import Report
from megace2_iot.cli.experiments.request import Request
from megace2_iot.cli.experiments.tables import BASELINES, OURS, PERSONAL, SITE, run_table

TITLE = "Table 1: methods on CMU-MOSI"
PUBLISHED = {
    "ef_lstm": (74.1, 44.0, 0.680),
    "lf_lstm": (76.6, 45.8, 0.678),
    "mctn": (78.3, 50.4, 0.586),
    "raven": (80.4, 53.1, 0.575),
    "v2em_lite": (82.5, 56.3, 0.554),
    PERSONAL: (85.3, 59.2, 0.529),
}
NOTES = [
    "The paper's row V2EM is of a model of emotions from raw video; V2EM-lite takes features (docs/readings.md 21). "
    "Its row Mega-CE2 stands beside ours with adapters (docs/readings.md 24)."
]


def run(request: Request) -> Report:
    """All methods with every seed; `--data` names MOSI's file."""
    return run_table("table1", TITLE, request.at_site(*SITE), {**BASELINES, **OURS}, PUBLISHED, NOTES)
