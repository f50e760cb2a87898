"""The paper's claims on adapters, tested: what they bring, what they cost elsewhere, and what sending them would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from megace2_iot.cli.experiments.comparison import Difference, answers_of, difference
from megace2_iot.cli.experiments.corpus import Corpora, Corpus
from megace2_iot.cli.experiments.federation import EdgeData, Federation, FederationSettings
from megace2_iot.cli.experiments.finished import Finished, Result, Results, Tell, run_all, silent
from megace2_iot.cli.experiments.judge import Judge, hits
from megace2_iot.cli.experiments.report import Cell, Report
from megace2_iot.cli.experiments.request import TRAINING, Request
from megace2_iot.cli.experiments.statistics import Interval, bootstrap, spread
from megace2_iot.cli.experiments.torch_learner import SendingLearner, TorchLearner, scores_of
from megace2_iot.parameters import Vector
from megace2_iot.problems import Problem

TITLE = "Personalisation: adapters kept at the edge, and sent"
ARMS = ("kept", "sent")  # two federations; the rows of the first stand on the same release
ROWS = {
    "base": "base",
    "inserted": "adapter, inserted",
    "output": "adapter at the output",
    "full": "full fine-tuning",
    "sent": "adapters sent and averaged",
}
Answers = Callable[[EdgeData], "np.ndarray[Any, Any]"]


def run(request: Request) -> Report:
    """Both federations with every seed. Raises `Problem` for data that do not fit."""
    finished, corpora = Finished(request.out / "personalisation", show=request.show), Corpora(request)

    def one(arm: str, seed: int, tell: Tell) -> Result:
        corpus = corpora.of(seed)
        settings = {**request.settings(), "arm": arm, "data": corpus.digest}
        way = run_kept if arm == "kept" else run_sent
        return finished.of(arm, seed, settings, lambda: way(corpus, seed, request, tell))

    return _report(request, corpora, run_all(finished, "personalisation", ARMS, request.seeds, one))


def run_kept(corpus: Corpus, seed: int, request: Request, tell: Tell = silent) -> Result:
    """The product's way: one federation, then each edge personalises its last release in three ways."""
    learner = TorchLearner(corpus.model)
    vector, result = federate(learner, corpus, seed, request, tell)
    tuning = dict(request.learning().adapter_training)
    full = {**TRAINING[request.preset], "epochs": tuning["epochs"]}  # as often over the same samples
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS if name != "sent"}
    for number, edge in enumerate(corpus.edges):
        ways: dict[str, tuple[Callable[[EdgeData], Any], dict[str, Any]]] = {
            "base": (lambda at: learner.answers(vector, at.held_out), {}),
            "inserted": adapted(learner, vector, edge, "inserted", tuning, seed),
            "output": adapted(learner, vector, edge, "output", tuning, seed),
            "full": _fully(learner, vector, edge, full, seed),
        }
        for name, (answers, facts) in ways.items():
            rows[name].append({**_scores(answers, corpus, number), **facts})
    return {**result, "rows": rows}


def run_sent(corpus: Corpus, seed: int, request: Request, tell: Tell = silent) -> Result:
    """The other way: edges send their adapters, and one global adapter comes back with each release."""
    learner = SendingLearner(corpus.model, seed)
    vector, result = federate(learner, corpus, seed, request, tell)
    rows = [_scores(lambda at: learner.answers(vector, at.held_out), corpus, n) for n in range(len(corpus.edges))]
    return {**result, "rows": {"sent": rows}}


def federate(learner: TorchLearner, corpus: Corpus, seed: int, request: Request, tell: Tell) -> tuple[Vector, Result]:
    """A `latched` run with every release judged; the last release, the curve and the figures."""
    judge = Judge(learner, corpus.edges, 0.0, tell)
    settings = FederationSettings("latched", request.fleet, request.learning())
    federation = Federation(learner, corpus.edges, settings, seed, judge)
    federation.run(request.scale.seconds)
    vector = federation.cloud.vector(federation.cloud.newest)
    assert vector is not None
    return vector, {**judge.result(), "figures": federation.figures(), "steps_rms": judge.steps}


def adapted(
    learner: TorchLearner, vector: Vector, edge: EdgeData, placement: str, tuning: Mapping[str, Any], seed: int
) -> tuple[Callable[[EdgeData], Any], dict[str, Any]]:
    judged = learner.personalise(vector, edge.fit, edge.gate, placement, tuning, seed)
    if "adapter" not in judged:
        raise Problem(f"no adapter can be tuned on this data: {judged['reason']}")
    adapter = judged["adapter"]
    trained = sum(int(tensor.size) for tensor in adapter.values())
    answers = lambda at: learner.adapted_answers(vector, adapter, placement, at.held_out)  # noqa: E731
    return answers, {"gate": judged["gate"], "trained": trained}


def _fully(
    learner: TorchLearner, vector: Vector, edge: EdgeData, training: Mapping[str, Any], seed: int
) -> tuple[Callable[[EdgeData], Any], dict[str, Any]]:
    own = vector + learner.train(vector, edge.fit, seed, training, None).delta
    return lambda at: learner.answers(own, at.held_out), {"trained": own.size}


def _scores(answers: Callable[[EdgeData], Any], corpus: Corpus, own: int) -> dict[str, Any]:
    """Accuracy on the edge's own held-out samples, and in the mean on the other edges'; its answers to its own."""
    said, truths = [answers(edge) for edge in corpus.edges], [scores_of(edge.held_out) for edge in corpus.edges]
    found = [hits(answer, truth) for answer, truth in zip(said, truths, strict=True)]
    return {
        "own": found[own],
        "others": float(np.mean([value for n, value in enumerate(found) if n != own])),
        "answers": answers_of(corpus.edges[own].rows, truths[own].tolist(), said[own].tolist()),
    }


# -- what comes of it -----------------------------------------------------------------
COLUMNS = (
    "way",
    "own data",
    "gain",
    "gated gain",
    "others' data",
    "forgetting",
    "parameters",
    "answer drift",
    "step rms x 1000",
)
ADAPTED = ("inserted", "output")
DOTS = {
    "own data": {"label": "on the edge's own data", "axis": "accuracy on held-out samples"},
    "others' data": {"label": "on other edges' data"},
}


def _report(request: Request, corpora: Corpora, outcome: tuple[Results, bool]) -> Report:
    results, _ = outcome
    base = {run["seed"]: _mean(run, "base") for run in results["kept"]}
    rows = []
    for name, title in ROWS.items():
        runs = [run for run in results["sent" if name == "sent" else "kept"] if run["seed"] in base]
        if runs:
            rows.append(_row(name, title, runs, base))
    told, details = [], dict[str, Any]()
    for name in ADAPTED:
        gains, paired = _gains(results["kept"], name), _paired(results["kept"], name)
        if paired is not None:
            over = bootstrap([each["gain"] for each in gains])
            told.append(_told(ROWS[name], gains, over, paired))
            details[name] = {"edges": gains, "over_edges": over._asdict(), "over_samples": paired.to_json()}
    notes = [
        *told,
        "Each edge's own held-out samples and the other edges', mean over edges, ± deviation over seeds. Gain and "
        "forgetting are against the base of the same seed. No gate: every adapter answers; the gated gain is 0 where "
        "the edge's gate would have kept the base.",
        "The three ways train on the same labelled samples of the edge, equally often, over the same release.",
        "Sent: an edge goes on from the global adapter over its round's mean and offers it with the base; the cloud "
        "averages both by the same rule. Elsewhere adapters begin anew for each release and stay.",
        "Answer drift: mean square change of the global model's answers to all held-out samples from release to "
        "release, in the second half of a run. Step: root mean square change of its parameters. The paper claims that "
        "keeping adapters local avoids oscillation of the global model, and prints no figure (docs/readings.md 23).",
    ]
    return Report.of_runs(
        "personalisation",
        TITLE,
        request,
        corpora,
        outcome,
        COLUMNS,
        rows,
        notes=notes,
        readings={"way": [10, 12], "answer drift": [23]},
        details={"dots": DOTS, "gains": details},
    )


def _row(name: str, title: str, runs: list[Result], base: Mapping[int, dict[str, float]]) -> dict[str, Cell]:
    own, others = ([_mean(run, name)[side] for run in runs] for side in ("own", "others"))
    row: dict[str, Cell] = {"way": title, "own data": spread(own), "others' data": spread(others)}
    if name != "base":
        row["gain"] = spread([value - base[run["seed"]]["own"] for value, run in zip(own, runs, strict=True)])
        row["forgetting"] = spread(
            [base[run["seed"]]["others"] - value for value, run in zip(others, runs, strict=True)]
        )
    if name in ADAPTED:
        gated = [[g["gain"] if g["gate"] == "adapter" else 0.0 for g in _gains([run], name)] for run in runs]
        row["gated gain"] = spread([float(np.mean(each)) for each in gated])
    if trained := runs[0]["rows"][name][0].get("trained"):
        row["parameters"] = float(trained)
    if name in ("base", "sent"):
        row["answer drift"] = spread([_late(run["points"]) for run in runs])
        row["step rms x 1000"] = spread([1000 * _second_half(run["steps_rms"]) for run in runs])
    return row


def _mean(run: Result, name: str) -> dict[str, float]:
    """Means over edges."""
    return {side: float(np.mean([row[side] for row in run["rows"][name]])) for side in ("own", "others")}


def _late(points: list[dict[str, Any]]) -> float:
    return _second_half([point["drift"] for point in points if point["drift"] is not None])


def _second_half(values: list[float]) -> float:
    return float(np.mean(values[len(values) // 2 :])) if values else 0.0


def _gains(runs: Sequence[Result], name: str) -> list[dict[str, Any]]:
    """What each edge of each seed gained, and what its gate would have said."""
    return [
        {"seed": run["seed"], "edge": f"edge-{n}", "gain": own["own"] - base["own"], "gate": own["gate"]}
        for run in runs
        for n, (own, base) in enumerate(zip(run["rows"][name], run["rows"]["base"], strict=True), 1)
    ]


def _paired(runs: Sequence[Result], name: str) -> Difference | None:
    """Every edge's own held-out samples, by its adapter and by the base."""

    def all_of(run: Result, way: str) -> dict[str, Any]:
        return {id: answer for edge in run["rows"][way] for id, answer in edge["answers"].items()}

    return difference((run["settings"]["data"], all_of(run, name), all_of(run, "base")) for run in runs)


def _told(title: str, gains: Sequence[Mapping[str, Any]], over: Interval, paired: Difference) -> str:
    """The mean gain with its interval, and who lost."""
    lost = [each for each in gains if each["gain"] < 0]
    who = ", ".join(f"{e['edge']} of seed {e['seed']} {e['gain']:+.3f} (gate: {e['gate']})" for e in lost)
    return (
        f"{title}: mean gain {over.mean:+.3f} (95 % interval {over.low:+.3f} to {over.high:+.3f} over {len(gains)} "
        f"edges of all seeds); paired by sample {paired}. {f'Lost: {who}.' if lost else 'No edge lost.'}"
    )
