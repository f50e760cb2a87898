"""Equation (4) with updates that arrive one by one: four rules over flat vectors, each a pure function of a state.

`latched`, the default, keeps w_i = release[base_version] + delta of each live edge; the global model is their mean
weighted by the examples behind them, per parameter group, at every instant. `rate` keeps a few scalars an edge and
takes steps that do not favour who reports often. `fedasync` (Xie, Koyejo, Gupta 2019) and `fedbuff` (Nguyen et al.
2022) are there to compare with.

A group's sums run over the live edges that have examples for it; where there are none, its values stay. A refusal is a
value that says what the edge should do. Arrays are never written to once they are in a state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, cast

import numpy as np

from megace2_iot.parameters import Layout, ModelUpdate, Vector, blocks, check_examples, is_finite, weighted_mean

Rule = Literal["latched", "rate", "fedasync", "fedbuff"]
MIN_SILENCE = 600.0  # s before which nobody is taken for gone
SILENT_GAPS = 3.0  # of its usual gaps without a word, and an edge is gone
GAP_MEMORY = 0.3  # weight of the newest gap in an edge's usual gap
MAX_LAG = 50  # releases behind which `rate` takes no step
LEAST_FACTOR, LARGEST_FACTOR = 0.1, 4.0  # of a step of `rate`, for the fastest and the slowest edges
MIXING, LARGEST_MIXING = 0.6, 0.9  # of `fedasync`
BUFFER = 10  # updates to a step of `fedbuff`
SHORTEST_GAP = 1e-3  # s between two updates of an edge


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """One edge's update, at unix time `at`."""

    edge: str
    update: ModelUpdate
    update_id: str
    at: float


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """What is known of a live edge; `model` is its w_i, kept by `latched` only."""

    last_at: float  # unix s
    gap: float | None  # s usually between two updates; None before the second
    num_examples: Mapping[str, float]  # behind its newest update
    update_id: str
    model: Vector | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """`fedbuff`'s sum of discounted n * delta, and of n, since its last step."""

    total: Vector
    num_examples: Mapping[str, float]
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """An aggregation between two arrivals: `vector` (P,) is the release `version`."""

    rule: Rule
    layout: Layout
    version: int
    vector: Vector
    edges: Mapping[str, Edge] = field(default_factory=dict)
    buffer: Buffer | None = None

    def at(self, version: int, vector: Vector) -> State:
        """The same edges over another release, as after a restart; a started buffer of `fedbuff` is dropped."""
        self.layout.check(vector)
        return replace(self, version=version, vector=_sealed(vector), buffer=None)


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """The new global model."""

    vector: Vector


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an update was not folded in, and what to do about it."""

    reason: str


class _Step(NamedTuple):
    """What a rule makes of an arrival."""

    vector: Vector
    model: Vector | None = None
    buffer: Buffer | None = None


def start(rule: str, layout: Layout, vector: Vector, version: int) -> State:
    """The state over release `version` before any update; raises ValueError for an unknown rule or a wrong vector."""
    if rule not in _RULES:
        raise ValueError(f"unknown rule {rule!r}, known are {', '.join(_RULES)}")
    layout.check(vector)
    return State(cast(Rule, rule), layout, version, _sealed(vector))


def fold(state: State, arrival: Arrival, base: Vector | None) -> tuple[State, Folded | Refused]:
    """Take one update; `base` is the release it was trained from, None where that is gone."""
    update = arrival.update
    try:
        counts = check_examples(state.layout, update.num_examples)
        state.layout.check(update.delta)
        if base is not None:
            state.layout.check(base)
    except ValueError as error:
        return state, Refused(f"layout: {error}; adopt release {state.version} and train from it")
    if not counts:
        return state, Refused("no examples: offer an update once there are labelled examples behind it")
    if update.base_version > state.version:
        return state, _need_full(state, f"release {update.base_version} was never made here")
    if not is_finite(update.delta):
        return state, _not_finite(state)
    edges = {**state.edges, arrival.edge: _heard(state.edges.get(arrival.edge), arrival, counts)}
    with np.errstate(over="ignore", invalid="ignore"):  # values beyond float32 are refused below
        step = _RULES[state.rule](state, arrival.edge, edges, update, base)
    if isinstance(step, Refused):
        return state, step
    if not is_finite(step.vector):
        return state, _not_finite(state)
    if step.model is not None:
        edges[arrival.edge] = replace(edges[arrival.edge], model=_sealed(step.model))
    vector = _sealed(step.vector)
    after = replace(state, version=state.version + 1, vector=vector, edges=edges, buffer=step.buffer)
    return after, Folded(vector)


def expire(state: State, now: float) -> State:
    """Drop the edges that are silent too long; the model moves with the next update, not now."""
    edges = {name: edge for name, edge in state.edges.items() if now - edge.last_at <= _patience(edge)}
    return state if len(edges) == len(state.edges) else replace(state, edges=edges)


def resumed(state: State, now: float) -> State:
    """The state after the cloud itself was away: the edges could not be heard, so their silence begins anew."""
    away = now - max((edge.last_at for edge in state.edges.values()), default=now)
    return replace(
        state, edges={name: replace(edge, last_at=edge.last_at + away) for name, edge in state.edges.items()}
    )


def live(state: State) -> tuple[str, ...]:
    """The edges whose examples count, by name."""
    return tuple(sorted(state.edges))


# -- the rules ------------------------------------------------------------------------
# Each takes the state, who reports, the edges with this report in them, the update, and its base.
def _latched(
    state: State, name: str, edges: Mapping[str, Edge], update: ModelUpdate, base: Vector | None
) -> _Step | Refused:
    """w = sum n_k w_k / sum n_k: equation (4), literally."""
    if base is None:
        return _need_full(state, f"release {update.base_version} is not kept any more")
    own = base + update.delta
    if not is_finite(own):
        return _not_finite(state)
    models = {edge: own if edge == name else known.model for edge, known in edges.items()}
    # not in the order of arrival: the sum is the same bits in any order
    parts = [(model, edges[edge].num_examples) for edge, model in sorted(models.items()) if model is not None]
    return _Step(weighted_mean(state.layout, parts, state.vector), model=own)


def _rate(
    state: State, name: str, edges: Mapping[str, Edge], update: ModelUpdate, base: Vector | None
) -> _Step | Refused:
    """w += n_i / M * clip(mean rate / r_i) * delta_i, with M the examples of all live edges.

    M is known only when all have reported, so the steps before were too large. A newcomer's first step goes
    n_i / M of the way to its w_i and so takes that back: a first cycle from one base is equation (4) in any order.
    """
    if state.version - update.base_version > MAX_LAG:
        return _need_full(state, f"release {update.base_version} is more than {MAX_LAG} releases old")
    before = state.edges[name].num_examples if name in state.edges else {}
    factor, vector = _rate_factor(edges, name), state.vector.copy()
    for group, count in edges[name].num_examples.items():
        part, share = state.layout.groups[group], count / _examples(edges, group)
        if group in before:
            _add(vector, part, share * factor, update.delta)
        elif base is None:
            return _need_full(state, f"release {update.base_version} is not kept any more")
        else:
            _approach(vector, part, share, base, update.delta)
    return _Step(vector)


def _fedasync(
    state: State, name: str, edges: Mapping[str, Edge], update: ModelUpdate, base: Vector | None
) -> _Step | Refused:
    """w += a (w_i - w) with a = min(0.9, 0.6 * n_i / mean n * (1 + lag) ** -0.5)."""
    if base is None:
        return _need_full(state, f"release {update.base_version} is not kept any more")
    vector, discount = state.vector.copy(), _discount(state, update)
    for group, count in edges[name].num_examples.items():
        mean = _examples(edges, group) / sum(group in edge.num_examples for edge in edges.values())
        share = min(LARGEST_MIXING, MIXING * count / mean * discount)
        _approach(vector, state.layout.groups[group], share, base, update.delta)
    return _Step(vector)


def _fedbuff(
    state: State, name: str, edges: Mapping[str, Edge], update: ModelUpdate, base: Vector | None
) -> _Step | Refused:
    """After every `BUFFER` updates: w += sum (1 + lag) ** -0.5 n_i delta_i / sum n_i.

    Not divided by the sum of the discounted n: the discount would cancel where all are equally late.
    """
    held = state.buffer or Buffer(np.zeros(state.layout.size, np.float32), {}, 0)
    total, examples, discount = held.total.copy(), dict(held.num_examples), _discount(state, update)
    for group, count in edges[name].num_examples.items():
        _add(total, state.layout.groups[group], count * discount, update.delta)
        examples[group] = examples.get(group, 0.0) + count
    if held.count + 1 < BUFFER:
        return _Step(state.vector, buffer=Buffer(_sealed(total), examples, held.count + 1))
    vector = state.vector.copy()
    for group, count in examples.items():
        _add(vector, state.layout.groups[group], 1 / count, total)
    return _Step(vector)


_Apply = Callable[[State, str, Mapping[str, Edge], ModelUpdate, Vector | None], _Step | Refused]
_RULES: dict[str, _Apply] = {"latched": _latched, "rate": _rate, "fedasync": _fedasync, "fedbuff": _fedbuff}


# -- parts of the rules ---------------------------------------------------------------
def _heard(known: Edge | None, arrival: Arrival, counts: Mapping[str, float]) -> Edge:
    """The edge after this arrival."""
    if known is None:
        return Edge(arrival.at, None, counts, arrival.update_id)
    newest = max(arrival.at - known.last_at, SHORTEST_GAP)
    gap = newest if known.gap is None else known.gap + GAP_MEMORY * (newest - known.gap)
    return Edge(max(arrival.at, known.last_at), gap, counts, arrival.update_id)


def _patience(edge: Edge) -> float:
    """Seconds of silence after which this edge is gone."""
    return max(MIN_SILENCE, SILENT_GAPS * (edge.gap or 0.0))


def _rate_factor(edges: Mapping[str, Edge], name: str) -> float:
    """Mean rate of the live edges over this edge's; 1 until it has reported twice."""
    own, gaps = edges[name].gap, [edge.gap for edge in edges.values() if edge.gap is not None]
    if own is None:
        return 1.0
    return min(max(own * sum(1 / gap for gap in gaps) / len(gaps), LEAST_FACTOR), LARGEST_FACTOR)


def _examples(edges: Mapping[str, Edge], group: str) -> float:
    """The examples of all live edges behind one group."""
    return sum(edge.num_examples.get(group, 0.0) for edge in edges.values())


def _discount(state: State, update: ModelUpdate) -> float:
    return float((1 + state.version - update.base_version) ** -0.5)


def _add(vector: Vector, part: slice, share: float, delta: Vector) -> None:
    """vector += share * delta within `part`."""
    for block in blocks(part):
        vector[block] += np.float32(share) * delta[block]


def _approach(vector: Vector, part: slice, share: float, base: Vector, delta: Vector) -> None:
    """vector += share * (base + delta - vector) within `part`."""
    for block in blocks(part):
        vector[block] += np.float32(share) * (base[block] + delta[block] - vector[block])


def _sealed(vector: Vector) -> Vector:
    """`vector` as a read-only view."""
    view = vector.view()
    view.flags.writeable = False
    return view


def _need_full(state: State, why: str) -> Refused:
    return Refused(f"need_full: {why}; adopt release {state.version} and train from it")


def _not_finite(state: State) -> Refused:
    return Refused(f"not finite: the update holds NaN or infinity; train again from release {state.version}")
