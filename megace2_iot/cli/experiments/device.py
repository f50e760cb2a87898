"""A simulated device: pulls the base, trains, sends its delta, keeps what int8 left over once that is accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from edge_gateway.rounds import Round
from megace2_iot.cli.experiments.fleet import Traits, fate
from megace2_iot.cli.experiments.world import World
from megace2_iot.deltas import encode_delta
from megace2_iot.parameters import Vector


class Task(NamedTuple):
    """A round that wants the device. `sent(body, num_examples)` delivers its update and says whether it counts.

    A body of None is nothing to give: its training came to no finite values.
    """

    round: Round
    base: Vector
    training: Mapping[str, Any]
    sent: Callable[[bytes | None, Mapping[str, float]], bool]
    left: Callable[[], object]  # its will, where anybody hears it
    back: Callable[[], object]


class SimulatedDevice:
    """One training at a time; of the rounds that open meanwhile the newest waits, as in `device_agent.learning`."""

    def __init__(self, world: World, name: str, number: int, traits: Traits, examples: Sequence[Any]) -> None:
        self.name, self.examples = name, examples
        self._world, self._number, self._traits = world, number, traits
        self._residual: Vector | None = None
        self._memory: Vector | None = None
        self._holds = 0  # the release on its disk
        self._busy = self._away = False
        self._next: Task | None = None

    def round_opened(self, task: Task) -> None:
        """Train for this round, or after the training that is under way."""
        if self._away:
            return
        if self._busy:
            self._world.missed += self._next is not None
            self._next = task
        else:
            self._begin(task)

    def _begin(self, task: Task) -> None:
        world, traits = self._world, self._traits
        self._busy = True
        trained = world.learner.train(task.base, self.examples, task.round.number, task.training, self._memory)
        world.trained += 1
        body, residual = _encoded(trained.delta, str(task.training["codec"]), self._residual)
        befalls = fate(world.fleet, world.seed, self._number, task.round.number)
        seconds = self._pull(task.round.base_version) + trained.steps * traits.step * befalls.slowness
        if befalls.leaves:
            world.clock.after(befalls.part * seconds, partial(self._leave, task))
            return

        def arrive() -> None:
            if task.sent(body, trained.num_examples):
                self._residual, self._memory = residual, trained.memory
            self._finish()

        size = len(body or b"")
        world.traffic.device_up += size
        world.clock.after(seconds + traits.upload(size), arrive)

    def _pull(self, version: int) -> float:
        """Seconds until the release is here; none where it is already."""
        if version == self._holds:
            return 0.0
        self._holds = version
        self._world.traffic.device_down += self._world.release_bytes
        return self._traits.download(self._world.release_bytes)

    def _finish(self) -> None:
        self._busy = False
        waiting, self._next = self._next, None
        if waiting is not None:
            self._begin(waiting)

    def _leave(self, task: Task) -> None:
        self._busy, self._away, self._next = False, True, None
        fleet = self._world.fleet
        if fleet.will_after is not None and fleet.will_after < fleet.away:
            self._world.clock.after(fleet.will_after, task.left)
        self._world.clock.after(fleet.away, partial(self._return, task))

    def _return(self, task: Task) -> None:
        self._away = False
        task.back()


def _encoded(delta: Vector, codec: str, residual: Vector | None) -> tuple[bytes | None, Vector | None]:
    """`encode_delta`, or no body for values that cannot be sent."""
    try:
        return encode_delta(delta, codec, residual)
    except ValueError:
        return None, residual
