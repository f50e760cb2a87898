"""The demo's report: figures that were measured in this run, as report.json, report.md and two plots."""

from __future__ import annotations

import json
import pickle
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from megace2_iot import __version__
from megace2_iot.cli.live import DROPS
from megace2_iot.cli.scoring import Scores, score
from megace2_iot.cli.watching import Watch
from megace2_iot.datasets.ridge import Anchors, anchors
from megace2_iot.telemetry import Telemetry, merged

if TYPE_CHECKING:
    from megace2_iot.cli.run_demo import Run

PHASES = ("generation", "transmission", "queue", "inference", "result", "end_to_end")
FORMAT = 1  # of report.json; docs/report.md describes it
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def make_report(run: Run, watch: Watch) -> dict[str, Any]:
    """Score the run, write all files, return the report."""
    tell = Console(stderr=True).print
    tell("the run is over: scoring its releases")
    scores = score(run, tell)
    report = build(run, watch, scores, _anchors(run))
    (run.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (run.folder / "report.md").write_text(as_markdown(report))
    try:
        from megace2_iot.cli.plots import draw
    except ModuleNotFoundError:
        tell("no plots: pip install 'megace2-iot[report]'")
    else:
        draw(report, watch, run.folder)
    return report


def _anchors(run: Run) -> Anchors | None:
    try:
        return anchors(run.dataset.split("train"), run.dataset.split("test"), run.dataset.dims)
    except ValueError:
        return None


def build(run: Run, watch: Watch, scores: Scores | None, simple: Anchors | None) -> dict[str, Any]:
    """The report as plain values."""
    devices, edges, cloud = (watch.total(tier) for tier in ("device", "edge", "cloud"))
    return {
        "format": FORMAT,
        "command": run.command,
        "seed": run.options.seed,
        "versions": versions(),
        "seconds": round(run.seconds, 1),
        "interrupted": run.interrupted,
        "data": {"name": run.dataset.name, "speed": run.speed, "notes": list(run.dataset.notes)},
        "preset": run.options.preset,
        "rule": run.options.rule,
        "broker": run.broker_name,
        "tiers": {
            "devices": run.options.devices * run.options.edges,
            "edges": run.options.edges,
            "clouds": 1,
        },
        "packets": _packets(devices, edges),
        "packet_bytes": _packet_bytes(run, devices),
        "latency_ms": {phase: _quantiles(devices, phase) for phase in PHASES},
        "training_seconds": _quantiles(devices, "training", scale=1.0),
        "accuracy": _accuracy(scores, simple),
        "edges": _edges(watch, scores),
        "rounds": {
            "closed": edges.counters["rounds_closed"],
            "late": edges.counters["rounds_late"],
            "abandoned": edges.counters["rounds_abandoned"],
        },
        "releases": cloud.counters["updates_folded"] + 1,
        "bytes": {
            "up": merged([devices, edges]).counters["bytes_up"],
            "down": merged([edges, cloud]).counters["bytes_down"],
        },
        "drops": {name: merged([devices, edges, cloud]).counters[name] for name in DROPS},
        "counters": {
            tier: dict(sorted(figures.counters.items()))
            for tier, figures in (("devices", devices), ("edges", edges), ("cloud", cloud))
        },
    }


def _packets(devices: Telemetry, edges: Telemetry) -> dict[str, int]:
    sent, shed = devices.counters, sum(n for name, n in devices.counters.items() if name.startswith("windows_shed_"))
    return {
        "accepted": sent["windows_accepted"],
        "sent": sent["windows_sent"] - sent["windows_resent"],
        "resent": sent["windows_resent"],
        "answered": sent["windows_answered"],
        "refused": sent["windows_refused"],
        "shed": shed + sent["windows_lost"],
        "duplicates": edges.counters["duplicates"],
        "rejected": edges.counters["packets_rejected"] + edges.counters["windows_rejected"],
    }


def _packet_bytes(run: Run, devices: Telemetry) -> dict[str, int | None]:
    """Packets as sent, against the same windows as raw float32 and as a pickle of their arrays."""
    sizes = devices.histograms.get("packet_bytes")
    played = [sample for shares in run.dealt for share in shares for sample in share]
    raw, pickled = [], []
    for sample in played:  # one at a time: words are put together when they are asked for
        arrays = {m: f.values for m, f in sample.features.items()}
        raw.append(sum(values.nbytes for values in arrays.values()))
        pickled.append(len(pickle.dumps(arrays)))
    return {
        "p50": None if sizes is None else round(sizes.quantile(0.5) or 0),
        "max": None if sizes is None else round(sizes.quantile(1.0) or 0),
        "raw_float32_p50": int(np.median(raw)) if raw else None,
        "pickle_p50": int(np.median(pickled)) if pickled else None,
    }


def _quantiles(figures: Telemetry, name: str, scale: float = 1000.0) -> dict[str, float | None]:
    histogram = figures.histograms.get(name)
    values = {key: histogram.quantile(q) if histogram else None for key, q in QUANTILES.items()}
    return {key: None if value is None else round(scale * value, 3) for key, value in values.items()}


def _accuracy(scores: Scores | None, simple: Anchors | None) -> dict[str, Any]:
    rows = [] if scores is None else [[v, m.acc2, m.f1, m.mae] for v, m in scores.by_version]
    return {
        "first": rows[0][1] if rows else None,
        "last": rows[-1][1] if rows else None,
        "majority": None if simple is None else simple.majority,
        "ridge": None if simple is None else simple.ridge.acc2,
        "by_version": rows,
        "not_scored": 0 if scores is None else scores.skipped,
    }


def _edges(watch: Watch, scores: Scores | None) -> dict[str, dict[str, Any]]:
    measured: Mapping[str, dict[str, Any]] = {} if scores is None else scores.edges
    facts = {node.id: node.facts for node in watch.of_tier("edge")}
    return {
        edge: {
            **figures,
            "gate": facts.get(edge, {}).get("gate", "blind"),
            "reason": facts.get(edge, {}).get("gate_reason", ""),
        }
        for edge, figures in measured.items()
    }


def versions() -> dict[str, str]:
    found = {"megace2": __version__, "python": platform.python_version(), "machine": platform.machine()}
    for package in ("torch", "numpy", "aiomqtt", "paho-mqtt", "zstandard"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


# -- for people -----------------------------------------------------------------------
def as_markdown(report: Mapping[str, Any]) -> str:
    """The report as a page."""
    lines = [
        "# Demo report",
        "",
        f"`{report['command']}` with seed {report['seed']}, {report['seconds']} s"
        + (" (ended by Ctrl-C)" if report["interrupted"] else ""),
        "",
    ]
    lines += [f"- {name}: {value}" for name, value in summary(report)]
    lines += [f"- {note}" for note in report["data"]["notes"]]
    lines += ["", "| ms | p50 | p95 | p99 |", "|---|---|---|---|"]
    for phase in PHASES:
        figures = report["latency_ms"][phase]
        lines.append(f"| {phase.replace('_', ' ')} | " + " | ".join(_show(figures[q]) for q in QUANTILES) + " |")
    lines += ["", "| edge | base | with adapter | gate | samples |", "|---|---|---|---|---|"]
    for edge, row in report["edges"].items():
        cells = (edge, _show(row["base"], 3), _show(row["adapter"], 3), row["gate"], row["samples"])
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    lines += ["", "| version | accuracy | F1 | MAE |", "|---|---|---|---|"]
    lines += [f"| {v} | {a:.3f} | {f:.3f} | {m:.3f} |" for v, a, f, m in report["accuracy"]["by_version"]]
    lines += ["", "![accuracy by version](accuracy.png)", "", "![latency](latency.png)", ""]
    lines += ["Environment: " + ", ".join(f"{name} {number}" for name, number in report["versions"].items()), ""]
    return "\n".join(lines)


def summary(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What matters, a line each."""
    packets, sizes, accuracy = report["packets"], report["packet_bytes"], report["accuracy"]
    tiers = report["tiers"]
    thrown = sum(report["drops"].values())
    return [
        ("tiers", f"{tiers['devices']} devices, {tiers['edges']} edges, 1 cloud over {report['broker']}"),
        (
            "windows",
            f"{packets['sent']} sent, {packets['answered']} answered, {packets['refused']} refused, "
            f"{packets['shed']} shed, {packets['duplicates']} duplicates, {packets['rejected']} rejected",
        ),
        (
            "bytes a packet",
            f"{_show(sizes['p50'], 0)} median, {_show(sizes['max'], 0)} largest; the same as raw float32 "
            f"{_show(sizes['raw_float32_p50'], 0)}, as a pickle {_show(sizes['pickle_p50'], 0)}",
        ),
        (
            "accuracy",
            f"{_show(accuracy['first'], 3)} in the first release, {_show(accuracy['last'], 3)} in the last "
            f"(majority {_show(accuracy['majority'], 3)}, ridge {_show(accuracy['ridge'], 3)})",
        ),
        (
            "rounds",
            ", ".join(f"{n} {name}" for name, n in report["rounds"].items()) + f"; {report['releases']} releases",
        ),
        ("traffic", f"{report['bytes']['up'] / 1e6:.1f} MB up, {report['bytes']['down'] / 1e6:.1f} MB down"),
        ("thrown away", f"{thrown}" + ("" if not thrown else f": {_nonzero(report['drops'])}")),
    ]


def print_report(report: Mapping[str, Any], folder: Path) -> None:
    """The report on a terminal."""
    console = Console()
    console.print(
        f"\n[bold]Report[/] of {report['seconds']} s" + (" (ended by Ctrl-C)" if report["interrupted"] else "")
    )
    facts = Table(show_header=False, box=None, pad_edge=False)
    for name, value in summary(report):
        facts.add_row(f"[bold]{name}[/]", value)
    console.print(facts)
    times = Table(title="Latency, ms (the split of the paper's Table 3)", title_justify="left")
    times.add_column("phase")
    for q in QUANTILES:
        times.add_column(q, justify="right")
    for phase in PHASES:
        times.add_row(phase.replace("_", " "), *(_show(report["latency_ms"][phase][q]) for q in QUANTILES))
    console.print(times)
    edges = Table(title="Accuracy on each edge's own held-out samples", title_justify="left")
    for name in ("edge", "base", "with adapter", "gate"):
        edges.add_column(name, justify="left" if name in ("edge", "gate") else "right")
    for edge, row in report["edges"].items():
        edges.add_row(edge, _show(row["base"], 3), _show(row["adapter"], 3), row["gate"])
    console.print(edges)
    for note in report["data"]["notes"]:
        console.print(f"- {note}", markup=False, highlight=False)
    console.print(f"All of it: {folder}/report.md, report.json, accuracy.png, latency.png", soft_wrap=True)
    sys.stdout.flush()


def _show(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _nonzero(drops: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in drops.items() if n)
