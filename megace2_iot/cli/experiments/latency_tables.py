"""What table 3 says: the paper's rows for one cell beside the paper's figures, and answers and bytes of every cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megace2_iot.cli.experiments.finished import Result
from megace2_iot.cli.experiments.latency import SATURATED, Cell, fullness, per_clip, seconds, times, told
from megace2_iot.cli.experiments.report import Cell as Shown
from megace2_iot.cli.experiments.report import Part

AIMED_AT = 20.0  # Mbit/s at which the aims are judged
COLUMNS = ("metric", "edge p50", "edge p95", "cloud p50", "cloud p95", "paper edge", "paper cloud")
ANSWERS = ("Mbit/s x users", "first p50", "first p95", "full p50", "full p95", "cloud p50", "cloud p95", "sooner")
BYTES = ("Mbit/s x users", "kB up", "cloud kB up", "fewer", "clips", "cloud clips", "note")
PUBLISHED = {  # as printed, in s and kB
    "t_gen": ("0.0450", "-"),
    "t_trans": ("0.0001", "-"),
    "t_trans_raw": ("-", "1.7500"),
    "t_infer": ("3.2086", "1.3821"),
    "t_trans_score": ("0.0001", "0.0001"),
    "end to end": ("0.0452", "3.1322"),
    "kB up": ("96-98", "5000-10000"),
}
Results = Mapping[str, Result]
Row = dict[str, Shown]
Pair = tuple[Cell, Result | None, Result | None]  # a cell of the edge's arm, its result, and that of the cloud's


def pairs(cells: Mapping[str, Cell], results: Results) -> list[Pair]:
    """Every rate and number of users with both arms' results."""
    return [
        (cell, results.get(cell.name), results.get(Cell("cloud", cell.mbit_s, cell.users).name))
        for cell in cells.values()
        if cell.arm == "edge"
    ]


def reference(cells: Mapping[str, Cell]) -> tuple[float, int]:
    """The rate nearest to what the aims are for, and the middle number of users."""
    rates = sorted({cell.mbit_s for cell in cells.values()})
    users = sorted({cell.users for cell in cells.values()})
    return min(rates, key=lambda rate: abs(rate - AIMED_AT)), users[len(users) // 2]


def tables_of(cells: Mapping[str, Cell], results: Results) -> tuple[Part, ...]:
    """The paper's table at the reference, answers of all cells, bytes of all cells."""
    rate, users = reference(cells)
    edge, cloud = results.get(Cell("edge", rate, users).name), results.get(Cell("cloud", rate, users).name)
    both = pairs(cells, results)
    return (
        Part("", COLUMNS, phases(edge, cloud, results.get("training"))),
        Part("Answers of every cell, s after the end of a clip", ANSWERS, [_answers(*pair) for pair in both]),
        Part("Bytes of every cell over the link, a clip", BYTES, [_bytes(*pair) for pair in both]),
    )


def phases(edge: Result | None, cloud: Result | None, training: Result | None) -> list[Row]:
    """The paper's metrics and ours, of one cell."""
    rows = []
    for metric in ("t_gen", "t_trans", "t_trans_raw", "queue", "t_infer", "t_trans_score", "first answer"):
        figure = {"t_trans_raw": "t_trans", "first answer": "first"}.get(metric, metric)
        shown = {"t_trans": (edge, None), "t_trans_raw": (None, cloud)}.get(metric, (edge, cloud))
        rows.append(_quantiles(metric, figure, *shown))
    rows.append(_quantiles("end to end", "full", edge, cloud))
    for metric, way in (("kB up", "up"), ("kB down", "down")):
        rows.append({"metric": metric, "edge p50": _kilo(edge, way), "cloud p50": _kilo(cloud, way)})
    if training is not None:
        spent = {"edge p50": seconds(training["round"]), "cloud p50": seconds(training["cloud"])}
        rows.append({"metric": "training, s", **spent})
    for row in rows:
        row["paper edge"], row["paper cloud"] = PUBLISHED.get(str(row["metric"]), ("-", "-"))
    return rows


def _quantiles(metric: str, figure: str, edge: Result | None, cloud: Result | None) -> Row:
    row: Row = {"metric": metric}
    for arm, result in (("edge", edge), ("cloud", cloud)):
        for name, q in (("p50", 0.5), ("p95", 0.95)):
            row[f"{arm} {name}"] = _shown(result, figure, q)
    return row


def _shown(result: Result | None, figure: str, q: float) -> str:
    if result is None:
        return "-"
    return seconds(told(result, figure, q), result["limit"] if figure in ("first", "full") else None)


def _kilo(result: Result | None, way: Any) -> str:
    size = None if result is None else per_clip(result, way)
    return "-" if size is None else f"{size / 1000:.1f}"


def _title(cell: Cell) -> str:
    return f"{cell.mbit_s:g} x {cell.users}"


def sooner(edge: Result | None, cloud: Result | None) -> str:
    """How many times sooner the first answer is there (medians)."""
    if edge is None or cloud is None:
        return "-"
    return times(told(edge, "first", 0.5), told(cloud, "first", 0.5), at_least=cloud["limit"])


def fewer(edge: Result | None, cloud: Result | None) -> str:
    """How many times fewer bytes go up for a clip; of what was sent in messages where a cell was cut."""
    if edge is None or cloud is None:
        return "-"
    if edge["cut"] or cloud["cut"]:
        return times(_payload(edge), _payload(cloud))
    return times(per_clip(edge, "up"), per_clip(cloud, "up"))


def _payload(result: Result) -> float | None:
    sizes = [clip["payload"] for clip in result["clips"] if "payload" in clip]
    return sum(sizes) / len(sizes) if sizes else None


def _answers(cell: Cell, edge: Result | None, cloud: Result | None) -> Row:
    row: Row = {"Mbit/s x users": _title(cell), "sooner": sooner(edge, cloud)}
    for head, result, figure in (("first", edge, "first"), ("full", edge, "full"), ("cloud", cloud, "full")):
        row |= {f"{head} p50": _shown(result, figure, 0.5), f"{head} p95": _shown(result, figure, 0.95)}
    return row


def _bytes(cell: Cell, edge: Result | None, cloud: Result | None) -> Row:
    remarks = [
        f"{arm} {remark}"
        for arm, result in (("edge", edge), ("cloud", cloud))
        if (remark := _remark(result, cell.mbit_s))
    ]
    return {
        "Mbit/s x users": _title(cell),
        "kB up": _kilo(edge, "up"),
        "cloud kB up": _kilo(cloud, "up"),
        "fewer": fewer(edge, cloud),
        "clips": _count(edge),
        "cloud clips": _count(cloud),
        "note": ", ".join(remarks),
    }


def _remark(result: Result | None, mbit_s: float) -> str:
    if result is None:
        return ""
    return "cut" if result["cut"] else "full" if fullness(result, mbit_s) >= SATURATED else ""


def _count(result: Result | None) -> str:
    if result is None:
        return "-"
    answered = len(result["clips"]) - result["cut"]
    return f"{answered}" if not result["cut"] else f"{answered} of {len(result['clips'])}"
