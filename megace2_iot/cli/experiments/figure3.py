"""Figure 3: convergence on data that differ from edge to edge, by round, bytes and time, each way side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from megace2_iot.cli.experiments.alone import centralised, local_only
from megace2_iot.cli.experiments.corpus import Corpora, Corpus
from megace2_iot.cli.experiments.federation import Federation, FederationSettings
from megace2_iot.cli.experiments.finished import Finished, Result, Results, Tell, run_all, silent
from megace2_iot.cli.experiments.judge import AdapterJudge, Judge
from megace2_iot.cli.experiments.learners import Learner
from megace2_iot.cli.experiments.method_learner import MethodLearner
from megace2_iot.cli.experiments.report import Cell, Report
from megace2_iot.cli.experiments.request import Request
from megace2_iot.cli.experiments.scaffold import ScaffoldLearner, SgdLearner
from megace2_iot.cli.experiments.statistics import final, mean_curve, reached, spread
from megace2_iot.cli.experiments.torch_learner import TorchLearner, train_steps

TITLE = "Figure 3: convergence on non-IID data"
TARGET = 0.95  # of the synchronous arm's final accuracy: the bar for "how soon"
LONGEST = 100.0  # virtual s of an arm: there are many
BASELINES = {
    "ef_lstm": "EF-LSTM",
    "lf_lstm": "LF-LSTM",
    "raven": "RAVEN",
    "mctn": "MCTN",
    "v2em_lite": "V2EM-lite",
}
LOOKED_FOR = ("at", "bytes", "rounds")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to learn. `learner` is model, sgd, scaffold, or the name of a baseline."""

    name: str
    title: str
    rule: str = "latched"  # one of the aggregator's, sync, centralised, or local
    learner: str = "model"
    training: Mapping[str, float] = field(default_factory=dict)
    adapter: str = ""  # its placement, where edges answer with one


ARMS = (
    Arm("centralised", "centralised", rule="centralised"),
    Arm("local", "local only", rule="local"),
    Arm("sync", "synchronous (FedAvg)", rule="sync"),
    Arm("latched", "asynchronous, latched"),
    Arm("latched-adapter", "latched, with adapters", adapter="inserted"),
    Arm("rate", "asynchronous, rate", rule="rate"),
    Arm("fedasync", "FedAsync", rule="fedasync"),
    Arm("fedbuff", "FedBuff", rule="fedbuff"),
    Arm("fedprox", "FedProx, synchronous", rule="sync", training={"proximal_mu": 0.01}),
    Arm("sgd", "synchronous, plain SGD", rule="sync", learner="sgd", training={"sgd_rate": 0.3}),
    Arm("scaffold", "SCAFFOLD, synchronous", rule="sync", learner="scaffold", training={"sgd_rate": 0.3}),
    *(Arm(name, f"{title}, latched", learner=name) for name, title in BASELINES.items()),
)


def run(request: Request) -> Report:
    """Every arm with every seed, then means and curves. Raises `Problem` for data that do not fit."""
    finished, corpora = Finished(request.out / "figure3", show=request.show), Corpora(request)
    arms = {arm.name: arm for arm in ARMS}

    def one(name: str, seed: int, tell: Tell) -> Result:
        arm = arms[name]
        corpus = corpora.of(seed, raw=arm.learner in BASELINES)
        way = {key: value for key, value in asdict(arm).items() if key not in ("name", "title")}
        settings = {**request.settings(), "arm": way, "data": corpus.digest, "seconds": _seconds(request)}
        return finished.of(name, seed, settings, lambda: run_arm(arm, corpus, seed, request, tell))

    return _report(request, corpora, run_all(finished, "figure3", list(arms), request.seeds, one))


def learner_of(arm: Arm, corpus: Corpus, seed: int) -> Learner:
    """What learns in an arm."""
    if arm.learner in BASELINES:
        return MethodLearner(arm.learner, corpus.dims, seed)
    kinds = {"model": TorchLearner, "sgd": SgdLearner, "scaffold": ScaffoldLearner}
    return kinds[arm.learner](corpus.model)


def run_arm(arm: Arm, corpus: Corpus, seed: int, request: Request, tell: Tell = silent) -> Result:
    """One arm with one seed, to its curve."""
    scale, fleet, learning = request.scale, request.fleet, request.learning(**arm.training)
    seconds = _seconds(request)
    learner = learner_of(arm, corpus, seed)
    if arm.rule == "local":
        points = local_only(learner, corpus.edges, fleet, learning, seed, seconds=seconds, every=scale.every)
        return {"points": points}
    if arm.rule == "centralised":
        judge = Judge(learner, corpus.edges, 0.0, tell)
        centralised(learner, corpus.edges, fleet, learning, seed, rounds=scale.central_rounds, judge=judge)
        return judge.result()
    judge, steps = Judge(learner, corpus.edges, scale.every, tell), 0
    if arm.adapter:
        assert isinstance(learner, TorchLearner)
        tuning = dict(learning.adapter_training)
        judge = AdapterJudge(learner, corpus.edges, scale.every, tell, placement=arm.adapter, settings=tuning)
        steps = train_steps(max(len(edge.fit) for edge in corpus.edges), tuning)
    settings = FederationSettings(arm.rule, fleet, learning, tuning_steps=steps)
    federation = Federation(learner, corpus.edges, settings, seed, judge)
    federation.run(seconds)
    judge.finish()
    return {**judge.result(), "figures": federation.figures()}


def _seconds(request: Request) -> float:
    return min(LONGEST, request.scale.seconds)


# -- what comes of it -----------------------------------------------------------------
PANELS = {
    "One model, learned together in several ways": (
        *("sync", "latched", "rate", "fedasync", "fedbuff", "fedprox", "sgd", "scaffold"),
    ),
    "Federated or not, and the baselines in the same federation": (
        *("centralised", "local", "latched", "latched-adapter", *BASELINES),
    ),
}
COLUMNS = ("arm", "accuracy", "F1", "MAE", "s to target", "MB to target", "rounds to target", "MB in all")


def _report(request: Request, corpora: Corpora, outcome: tuple[Results, bool]) -> Report:
    results, _ = outcome
    titles = {arm.name: arm.title for arm in ARMS}
    targets = {run["seed"]: TARGET * final(run["points"], "acc2") for run in results["sync"]}
    rows = [_row(titles[name], runs, targets) for name, runs in results.items() if runs]
    curves = {titles[name]: _curve(runs) for name, runs in results.items() if runs}
    panels = {title: [titles[name] for name in of if results.get(name)] for title, of in PANELS.items()}
    notes = [
        f"Accuracy, F1 and MAE are means over the last quarter of a run's virtual time, ± deviation over seeds. The "
        f"target is {TARGET:.0%} of what `synchronous` ends at with the same seed; '-' where a seed never got there.",
        "Every held-out sample is answered by what would answer it: the global model, its edge's adapter where the "
        "gate lets it, or (local only) each device of its edge, in the mean.",
        "Centralised: every device sends its Z[0] as raw float32 first. Bytes are of models, updates and such data.",
        "The paper's figure 3 has no numbers to set beside these (docs/readings.md 22).",
    ]
    return Report.of_runs(
        "figure3",
        TITLE,
        request,
        corpora,
        outcome,
        COLUMNS,
        rows,
        notes=notes,
        readings={"arm": [22]},
        details={"curves": curves, "panels": panels},
    )


def _curve(runs: list[Result]) -> dict[str, Any]:
    """By each axis on which it moves: who works alone sends nothing."""
    points = [run["points"] for run in runs]
    moved = [axis for axis in LOOKED_FOR if all(each[-1][axis] > 0 for each in points)]
    return {axis: mean_curve(points, axis) for axis in moved}


def _row(title: str, runs: list[Result], targets: Mapping[int, float]) -> dict[str, Cell]:
    row: dict[str, Cell] = {"arm": title}
    for column, figure in (("accuracy", "acc2"), ("F1", "f1"), ("MAE", "mae")):
        row[column] = spread([final(run["points"], figure) for run in runs])
    for column, axis, unit in (
        ("s to target", "at", 1.0),
        ("MB to target", "bytes", 1e6),
        ("rounds to target", "rounds", 1.0),
    ):
        found = [reached(run["points"], targets.get(run["seed"], 2.0), axis) for run in runs]
        row[column] = spread([None if value is None else value / unit for value in found])
    row["MB in all"] = spread([run["points"][-1]["bytes"] / 1e6 for run in runs])
    return row
