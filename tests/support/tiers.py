"""Tiers with fast settings, inside a test's event loop or as processes, and an ear for all that is published."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cloud_aggregator.cloud import CloudSettings, run_cloud
from device_agent.agent import Device
from device_agent.answers import Listener
from device_agent.learning import Learner
from device_agent.settings import DeviceSettings
from device_agent.sources import window_of
from device_agent.windows import Window
from edge_gateway.gateway import run_edge
from edge_gateway.settings import EdgeSettings
from megace2_iot.blobs import BlobStore
from megace2_iot.bus import BrokerSettings, Bus, connect
from megace2_iot.codec import DecodeError
from megace2_iot.datasets import Sample
from megace2_iot.datasets.synthetic import DIMS, synthetic
from megace2_iot.features import Modality
from megace2_iot.messages import LocalModel, Message
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Address, Topics

PATIENCE = 30.0  # s for anything that must come, on a machine that others use too
HEALTH = 0.2  # s
LEARNING = {
    "min_pause": 0.05,
    "min_deadline": 10.0,
    "personalise_every": 0.2,
    "training": {"epochs": 1},
    "adapter_training": {"epochs": 1},
}
SITE = Topics(site="test")
KINDS = {kind.kind: kind for kind in (*Message.__subclasses__(), LocalModel)}
M = TypeVar("M", bound=Message)


def free_port() -> int:
    """A port on which nobody listens now, below those that the system gives to whoever connects meanwhile."""
    while True:
        port = secrets.randbelow(20_000) + 10_000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def corpus(count: int = 24, *, split: str = "train", site: int = 0) -> list[Sample]:
    """The first samples of one stream of the built-in corpus."""
    samples = synthetic(0, streams=2, samples=count).samples
    return [sample for sample in samples if sample.split == split and sample.site == site]


async def played(
    samples: Iterable[Sample], pause: float = 0.0, without: Sequence[Modality] = ()
) -> AsyncIterator[Window]:
    """Samples as windows, `pause` seconds apart."""
    for sample in samples:
        await asyncio.sleep(pause)
        yield window_of(sample, without)


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait as long as it takes, and no longer than `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)  # conditions of other processes set no event


@contextlib.asynccontextmanager
async def running(*tiers: Coroutine[Any, Any, object]) -> AsyncIterator[list[asyncio.Task[object]]]:
    """Run tiers while the block runs; one that crashes ends the test with its error."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(tier, name=f"tier:{tier.__qualname__}") for tier in tiers]
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()


@dataclass(frozen=True)
class Lab:
    """One site on one broker: its tiers as coroutines to run."""

    url: str
    folder: Path
    topics: Topics = SITE
    identities: Path | None = None  # of all nodes and of `ear`, in an enrolled site
    keepalive: int = 15  # s
    repeat_every: float = 10.0  # s, on a cluster
    protocol: str = "auto"

    @property
    def broker(self) -> BrokerSettings:
        where = {"url": self.url} if self.identities is None else {"identity": self.identities}
        more = {"keepalive": self.keepalive, "repeat_every": self.repeat_every, "protocol": self.protocol}
        return BrokerSettings.model_validate({**where, **more})

    def cloud(self, **more: Any) -> Coroutine[Any, Any, None]:
        fields = {"state_dir": self.folder / "cloud", "durable": False, "health_interval": HEALTH, **more}
        return run_cloud(CloudSettings.model_validate(fields), self.topics, self.broker)

    def edge(
        self, id: str = "edge-1", *, learning: dict[str, Any] | None = None, **more: Any
    ) -> Coroutine[Any, Any, None]:
        fields = {
            "id": id,
            "state_dir": self.folder / "edges",
            "device": "cpu",
            "health_interval": HEALTH,
            "learning": {**LEARNING, **(learning or {})},
            **more,
        }
        return run_edge(EdgeSettings.model_validate(fields), self.topics, self.broker)

    def device(
        self,
        id: str = "cam-1",
        edge: str = "edge-1",
        learner: Learner | None = None,
        *,
        dims: dict[Modality, int] | None = None,
        embedded_by: str | None = None,
        listener: Listener | None = None,
        **more: Any,
    ) -> Device:
        fields = {"id": id, "edge": edge, "state_dir": self.folder / "devices", "health_interval": HEALTH, **more}
        settings = DeviceSettings.model_validate(fields)
        blobs = BlobStore(settings.state_dir / "blobs", id)
        return Device(
            settings,
            self.topics,
            self.broker,
            dims or DIMS,
            blobs,
            learner,
            rate=20.0,
            embedded_by=embedded_by,
            listener=listener,
        )

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Ear]:
        """An ear that hears everything from now on."""
        async with connect(self.broker, "ear") as bus:
            ear = Ear(bus, self.topics)
            heard = await bus.subscribe(self.topics.everything(), limit=100_000)
            listening = asyncio.create_task(ear.listen(heard), name="ear")
            try:
                yield ear
            finally:
                listening.cancel()
                await asyncio.wait([listening])

    def settings_file(self, text: str = "") -> Path:
        """A TOML file by which tiers run as processes on this site."""
        path = self.folder / "lab.toml"
        path.write_text(
            f'[site]\nname = "{self.topics.site}"\n[broker]\nurl = "{self.url}"\n'
            f'[cloud]\nstate_dir = "{self.folder}/cloud"\ndurable = false\nhealth_interval = {HEALTH}\n'
            f'[device]\nstate_dir = "{self.folder}/devices"\nhealth_interval = {HEALTH}\n'
            f'[edge]\nstate_dir = "{self.folder}/edges"\ndevice = "cpu"\nhealth_interval = {HEALTH}\n' + text
        )
        return path


class Ear:
    """All that was published on a site, decoded; what cannot be decoded is in `garbage`."""

    def __init__(self, bus: Bus, topics: Topics) -> None:
        self.bus, self._topics = bus, topics
        self.heard: list[tuple[Address, Message]] = []
        self.payloads: list[bytes] = []
        self.garbage: list[tuple[str, bytes]] = []

    async def listen(self, heard: AsyncIterator[Any]) -> None:
        async for delivery in heard:
            address = self._topics.parse(delivery.topic)
            if not delivery.payload:
                continue
            self.payloads.append(delivery.payload)
            try:
                self.heard.append((address, KINDS[address.kind].decode(delivery.payload)))
            except (DecodeError, KeyError):
                self.garbage.append((delivery.topic, delivery.payload))

    def of(self, kind: type[M], node: str = "") -> list[M]:
        """Messages of one kind, said by or to one node."""
        return [message for at, message in self.heard if type(message) is kind and node in ("", at.node)]  # type: ignore[misc]

    def figures(self, node: str) -> Telemetry:
        """The newest health of a node."""
        told = [message for at, message in self.heard if at.kind == "health" and at.node == node]
        return Telemetry.from_snapshot(told[-1].figures) if told else Telemetry()  # type: ignore[attr-defined]


# -- processes ------------------------------------------------------------------------
async def launch(*arguments: str, module: str = "megace2_iot.cli", **environment: str) -> asyncio.subprocess.Process:
    """`megace2 arguments` as a process of its own, everything it prints on one pipe."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb", **environment},
    )


@contextlib.asynccontextmanager
async def process(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The same, killed at the end of the block where it still runs."""
    child = await launch(*arguments, **environment)
    drained = asyncio.create_task(_keep(child), name="output")
    child.said = []  # type: ignore[attr-defined]
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
        await drained


async def _keep(child: asyncio.subprocess.Process) -> None:
    assert child.stdout is not None
    while line := await child.stdout.readline():
        child.said.append(line.decode())  # type: ignore[attr-defined]


async def command(*arguments: str, seconds: float = PATIENCE, **environment: str) -> tuple[int, str]:
    """Run `megace2 arguments` to its end; returns its status and all that it printed."""
    child = await launch(*arguments, **environment)
    try:
        async with asyncio.timeout(seconds):
            printed, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode is not None
    return child.returncode, printed.decode()
