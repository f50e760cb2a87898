"""Table 2 of the paper: methods compared on CMU-MOSEI."""

from __future__ import annotations

from megace2_iot.cli.experiments.report import Report
from megace2_iot.cli.experiments.request import Request
from megace2_iot.cli.experiments.table1 import NOTES as OF_METHODS
from megace2_iot.cli.experiments.tables import BASELINES, OURS, PERSONAL, SITE, run_table

NOTES = [*OF_METHODS, "The paper's figures are on MOSEI with sound and pictures (docs/readings.md 25)."]
TITLE = "Table 2: methods on CMU-MOSEI"
PUBLISHED = {
    "ef_lstm": (74.5, 44.7, 0.675),
    "lf_lstm": (76.8, 46.1, 0.667),
    "mctn": (79.2, 51.3, 0.581),
    "raven": (81.2, 51.1, 0.564),
    "v2em_lite": (82.2, 54.9, 0.529),
    PERSONAL: (86.6, 59.7, 0.514),
}


def run(request: Request) -> Report:
    """All methods with every seed; `--data` names MOSEI's file, and what else it names stands in the title."""
    return run_table("table2", TITLE, request.at_site(*SITE), {**BASELINES, **OURS}, PUBLISHED, NOTES)
