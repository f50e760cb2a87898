"""A simulated edge: the lesson of `edge_gateway.learning` as events. The rounds are the edge's own `Rounds`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from edge_gateway.learning import MIN_OWN, round_training
from edge_gateway.rounds import Abandoned, Closed, Round, Rounds, RoundSettings
from megace2_iot.cli.experiments.cloud import SimulatedCloud
from megace2_iot.cli.experiments.device import SimulatedDevice, Task
from megace2_iot.cli.experiments.fleet import Traits
from megace2_iot.cli.experiments.world import World
from megace2_iot.deltas import decode_delta, encode_delta
from megace2_iot.parameters import ModelUpdate, Vector

ACCEPTED = ("", "duplicate", "joins_next")
NOBODY_PAUSE = 1.0  # s at least until an edge without participants looks again


class SimulatedEdge:
    """`own` is the `fit` half of its labelled store; with enough of it the edge takes part in its rounds.

    `released(edge, num_examples)` is called when its update has made a release.
    `tuning_steps` are those of its adapter over a release: they take its time, what they give concerns nobody else.
    """

    def __init__(
        self,
        world: World,
        name: str,
        traits: Traits,
        devices: Sequence[SimulatedDevice],
        own: Sequence[Any],
        cloud: SimulatedCloud,
        released: Callable[[str, Mapping[str, float]], object],
        tuning_steps: int = 0,
    ) -> None:
        self.name, self.devices = name, devices
        self._world, self._traits, self._own = world, traits, own if len(own) >= MIN_OWN else ()
        self._cloud, self._released, self._tuning_steps = cloud, released, tuning_steps
        learning = world.learning
        self.rounds = Rounds(
            RoundSettings(min_deadline=learning.min_deadline, max_deadline=learning.max_deadline), last_number=0
        )
        self._offline: set[str] = set()
        self._version, self._base = 0, world.learner.first  # release 1 is pulled like any other
        self._offered = 0  # the release over which the newest accepted update was made
        self._open: Round | None = None
        self._residual: Vector | None = None
        self._memory: Vector | None = None  # of its own training, as a device has one
        self._next_round_at = self._next_tuning_at = 0.0  # s
        self._between_lessons = False
        self._alarm = 0  # only the newest alarm wakes
        self.refused = 0

    # -- the lesson -------------------------------------------------------------------
    def lesson(self) -> None:
        """Adopt what is newer, then pause or open a round."""
        clock = self._world.clock
        self._between_lessons = False
        if self._cloud.newest > self._version:
            version = self._cloud.newest
            self._world.traffic.edge_down += self._world.release_bytes
            seconds = self._traits.download(self._world.release_bytes) + self._tuning_seconds()
            clock.after(seconds, partial(self._adopt, version))
        elif self._cloud.waits_for_all and self._offered == self._version:
            self._between_lessons = True  # until the release that waits for the others
        elif clock.now < self._next_round_at:
            self._pause(self._next_round_at - clock.now)
        elif not self._participants():
            self._pause(max(self._world.learning.min_pause, NOBODY_PAUSE))
        else:
            self._open_round()

    def news(self) -> None:
        """The cloud has released: adopt it at once where no round is open."""
        if self._between_lessons:
            self.lesson()

    def _tuning_seconds(self) -> float:
        """What the adapter takes for the release that comes; none where one was tuned a moment ago."""
        if self._world.clock.now < self._next_tuning_at:
            return 0.0
        self._next_tuning_at = self._world.clock.now + self._world.learning.personalise_every
        return self._tuning_steps * self._traits.step

    def _adopt(self, version: int) -> None:
        base = self._cloud.vector(version)
        if base is not None:  # a slow edge: the release went while it was pulled
            self._version, self._base = version, base
        self.lesson()

    def _pause(self, seconds: float) -> None:
        self._between_lessons = True
        self._alarm += 1
        self._world.clock.after(seconds, partial(self._wake, self._alarm))

    def _wake(self, alarm: int) -> None:
        if self._between_lessons and alarm == self._alarm:
            self.lesson()

    # -- the round --------------------------------------------------------------------
    def _participants(self) -> list[str]:
        online = [device.name for device in self.devices if device.examples and device.name not in self._offline]
        return online + ([self.name] if self._own else [])

    def _open_round(self) -> None:
        world, members = self._world, self._participants()
        opened = self.rounds.open(members, self._version, world.clock.now, world.learner.layout)
        self._open = opened
        training = round_training(world.learning, self._version)
        for device in self.devices:
            if device.name in members:
                device.round_opened(self._task(device.name, opened, training))
        if self._own:
            self._train_itself(opened, training)
        world.clock.at(opened.deadline, self._look)

    def _task(self, device: str, opened: Round, training: Mapping[str, Any]) -> Task:
        return Task(
            round=opened,
            base=self._base,
            training=training,
            sent=partial(self._update_arrived, device, opened, str(training["codec"])),
            left=partial(self._device_gone, device),
            back=partial(self._offline.discard, device),
        )

    def _train_itself(self, opened: Round, training: Mapping[str, Any]) -> None:
        trained = self._world.learner.train(self._base, self._own, opened.number, training, self._memory)
        update = ModelUpdate(opened.base_version, trained.num_examples, trained.delta)

        def done() -> None:
            if self._count(self.name, opened, update):
                self._memory = trained.memory

        self._world.clock.after(trained.steps * self._traits.step, done)

    def _update_arrived(
        self, device: str, opened: Round, codec: str, body: bytes | None, num_examples: Mapping[str, float]
    ) -> bool:
        if body is None:
            self.rounds.gone(device, opened.number)
            self._look()
            return False
        delta = decode_delta(body, codec, self._world.learner.layout.size)
        return self._count(device, opened, ModelUpdate(opened.base_version, num_examples, delta))

    def _count(self, participant: str, opened: Round, update: ModelUpdate) -> bool:
        reason = self.rounds.delta(participant, opened.number, update, self._world.clock.now)
        self._look()
        return reason in ACCEPTED

    def _device_gone(self, device: str) -> None:
        self._offline.add(device)
        self.rounds.gone(device)
        self._look()

    def _look(self) -> None:
        """Whether the open round is over."""
        if self._open is None:
            return
        outcome = self.rounds.tick(self._world.clock.now)
        if isinstance(outcome, Closed):
            self._open = None
            self._offer(outcome)
        elif isinstance(outcome, Abandoned):
            self._open = None
            self._rest()

    # -- the update -------------------------------------------------------------------
    def _offer(self, closed: Closed) -> None:
        """Send the round's mean to the cloud; the next lesson begins when it has answered."""
        world, delta, num_examples = self._world, closed.delta, dict(closed.num_examples)
        seconds = 0.0
        settings = world.learning.adapter_training
        if (added := world.learner.refine(self._base + delta, self._own, closed.number, settings)) is not None:
            delta = delta + added.delta
            num_examples.update(added.num_examples)
            seconds = added.steps * self._traits.step
        body, residual = encode_delta(delta, world.learning.codec, self._residual)
        world.traffic.edge_up += len(body)

        def arrive() -> None:
            read = ModelUpdate(closed.base_version, num_examples, decode_delta(body, world.learning.codec, delta.size))
            verdict = self._cloud.receive(self.name, read, f"{self.name}/{closed.number}", world.clock.now)
            self._residual = residual if verdict.accepted else None
            self._offered = closed.base_version if verdict.accepted else 0
            self.refused += not verdict.accepted
            if verdict.released:
                self._released(self.name, num_examples)
            self._rest()

        world.clock.after(seconds + self._traits.upload(len(body)), arrive)

    def _rest(self) -> None:
        self._next_round_at = self._world.clock.now + self._world.learning.min_pause
        self.lesson()
