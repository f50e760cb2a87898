"""Table 5 of the paper: parameters of the model and of its adapter, by kind."""

from __future__ import annotations

from megace2_iot.cli.experiments.finished import Finished
from megace2_iot.cli.experiments.report import Cell, Report
from megace2_iot.cli.experiments.request import Request
from megace2_iot.model.adapter import Adapter
from megace2_iot.model.fusion import PRESETS, CrossModalTransformer, preset

TITLE = "Table 5: parameters"
DIMS = {"text": 300, "audio": 74, "vision": 35}
COLUMNS = ("preset", "part", "parameters", "MB of float32", "part of all, %", "paper MB")
PUBLISHED = {"attention": 19.48, "linear": 20.57, "all": 50.41, "adapter, attention": 0.36, "adapter, linear": 0.09}
PUBLISHED["adapter"] = 0.45


def counts(name: str) -> dict[str, int]:
    """Parameters of a preset and its adapter at 300/74/35, by kind."""
    model = CrossModalTransformer.seeded(preset(name, DIMS), 0)  # type: ignore[arg-type]
    kinds = dict.fromkeys(("attention", "linear", "rest"), 0)
    for parameter_name, parameter in model.named_parameters():
        kinds[_kind(parameter_name)] += parameter.numel()
    adapter = Adapter(model.config)
    attention = sum(p.numel() for p in adapter.attention.parameters())
    linear = sum(p.numel() for p in adapter.linear.parameters())
    return {
        **kinds,
        "all": sum(kinds.values()),
        "adapter, attention": attention,
        "adapter, linear": linear,
        "adapter": attention + linear,
    }


def _kind(name: str) -> str:
    """The paper's columns: self-attention layers, linear projections (feed-forward and input), and the rest."""
    if ".attention." in name:
        return "attention"
    if ".expand." in name or ".contract." in name:
        return "rest" if name.startswith("head.") else "linear"
    return "linear" if name.startswith("stem.") and name != "stem.table" else "rest"


def run(request: Request) -> Report:
    """Counted, not trained."""
    Finished(request.out)  # makes the folder, or says why not
    rows: list[dict[str, Cell]] = []
    for name in PRESETS:
        found = counts(name)
        for part, count in found.items():
            row: dict[str, Cell] = {"preset": name, "part": part, "parameters": f"{count:,}"}
            row |= {"MB of float32": count * 4e-6, "part of all, %": 100 * count / found["all"]}
            if name == "paper":
                row["paper MB"] = PUBLISHED.get(part)
            rows.append(row)
    notes = [
        "The shape of `paper` follows from the table itself (docs/readings.md 13); that its insertion points share one "
        "set of weights, too (docs/readings.md 11). MB are 10^6 bytes."
    ]
    return Report(
        name="table5",
        title=TITLE,
        request=request,
        columns=COLUMNS,
        rows=rows,
        results={},
        data={"name": "none", "digests": {}},
        notes=notes,
        readings={"paper MB": [11, 13]},
    )
