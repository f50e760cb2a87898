"""The demo's conductor: a broker, a cloud, edges and replayed devices as processes, watched until the time is up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megace2_iot.bus import BrokerSettings, Bus, connect
from megace2_iot.cli.live import progress
from megace2_iot.cli.processes import Child, stop_all
from megace2_iot.cli.watching import Watch
from megace2_iot.datasets import Dataset, Sample, load
from megace2_iot.datasets.partition import by_edge
from megace2_iot.datasets.splits import check_split
from megace2_iot.problems import Problem
from megace2_iot.service import leaves
from megace2_iot.topics import Topics

SHARED_LABELS = 0.2  # of the training samples; their labels go to the edge
STREAM_PART = 0.8  # of the run that the streams fill; afterwards the devices stay and train
RELEASES_SCORED = {"nano": 400, "mult": 30, "paper": 6}  # kept on disk for the report
TRAINING: dict[str, dict[str, float | str]] = {  # of a round, by preset: what a device does in about a second
    # smooth L1: under L1 any offset between two edges' raters is as good as another, and the base wanders between them
    "nano": {"learning_rate": 2e-3, "epochs": 2, "loss": "smooth_l1"},
    "mult": {"learning_rate": 1e-3, "epochs": 1, "max_seconds": 20.0},
    "paper": {"learning_rate": 5e-4, "epochs": 1, "max_seconds": 40.0},
}


@dataclass(frozen=True)
class DemoOptions:
    """What the command line says."""

    devices: int
    edges: int
    speed: float | None
    seconds: float
    preset: str
    rule: str
    data: str | None
    split: str
    vectors: Path | None
    broker: str
    seed: int
    out: Path
    as_json: bool

    def __post_init__(self) -> None:
        if self.preset not in TRAINING:
            raise ValueError(f"--preset {self.preset}: choose one of {', '.join(TRAINING)}")
        if self.rule not in ("latched", "rate", "fedasync", "fedbuff"):
            raise ValueError(f"--rule {self.rule}: choose one of latched, rate, fedasync, fedbuff")
        if self.broker not in ("embedded", "mosquitto") and "://" not in self.broker:
            raise ValueError(f"--broker {self.broker}: choose embedded, mosquitto or mqtt://host:port")
        check_split(self.split)


@dataclass(slots=True)
class Run:
    """One run of the demo, as the report needs it."""

    options: DemoOptions
    folder: Path
    dataset: Dataset
    dealt: list[list[tuple[Sample, ...]]]  # by edge, by device
    speed: float
    topics: Topics
    broker_name: str = ""
    seconds: float = 0.0
    interrupted: bool = False
    family: str = ""  # of the models that it made

    @property
    def edge_ids(self) -> list[str]:
        return [f"edge-{number}" for number in range(1, self.options.edges + 1)]

    @property
    def command(self) -> str:
        return shlex.join(["megace2", *sys.argv[1:]])


def run_demo(options: DemoOptions) -> int:
    """Prepare, conduct, report; returns the exit status."""
    run = prepare(options)
    logging.basicConfig(filename=run.folder / "logs" / "demo.log", level=logging.INFO)
    try:
        watch = asyncio.run(_conduct(run))
    except BaseException as error:  # a group of problems, or Ctrl-C; what is no problem is raised again
        inner = leaves(error)
        if all(isinstance(leaf, Problem) for leaf in inner):
            raise Problem("\n".join(dict.fromkeys(str(leaf) for leaf in inner))) from None
        raise
    from megace2_iot.cli.report import make_report, print_report  # torch and matplotlib, after the run

    report = make_report(run, watch)
    if options.as_json:
        print(json.dumps(report))
    else:
        print_report(report, run.folder)
    return 0


def prepare(options: DemoOptions) -> Run:
    """Load the data, deal it, make the folder and its settings file. Raises `Problem` saying what to do."""
    try:
        dataset = load(
            options.data or "synthetic",
            options.seed,
            max(2, options.edges),
            split=options.split,
            vectors=options.vectors,
        )
        dealt = by_edge(dataset.samples, options.edges, options.devices)
    except (OSError, ValueError) as error:
        raise Problem(f"the demo cannot use {options.data or 'the built-in corpus'}: {error}") from None
    folder = options.out / time.strftime("%Y%m%d-%H%M%S")
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(f"{options.out} cannot hold runs: {error.strerror}; choose another --out") from None
    # a site of its own on a broker that belongs to somebody
    site = f"demo-{secrets.token_hex(4)}" if "://" in options.broker else "demo"
    speed = options.speed or _speed(dealt, options.seconds * STREAM_PART)
    return Run(options, folder, dataset, dealt, speed, Topics(site=site))


def _speed(dealt: list[list[tuple[Sample, ...]]], seconds: float) -> float:
    """The speed at which the longest stream fills `seconds`."""
    from device_agent.sources import duration

    longest = max(duration(share) for shares in dealt for share in shares)
    return max(longest / seconds, 0.1)


# -- the processes --------------------------------------------------------------------
async def _conduct(run: Run) -> Watch:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _broker(run) as url:
        write_settings(run, url)
        settings = BrokerSettings(url=url)
        async with connect(settings, f"demo-{secrets.token_hex(3)}") as bus:
            await bus.wait_connected(settings.timeout * 2)
            return await _watched(run, bus, stop)


async def _watched(run: Run, bus: Bus, stop: asyncio.Event) -> Watch:
    watch = Watch(bus, run.topics)
    following = asyncio.create_task(watch.run(), name="watch")
    began = time.monotonic()
    children: list[list[Child]] = [[], [], []]  # devices, edges, cloud: the order in which they are stopped
    try:
        await _until(stop, _start(run, children))
        if not stop.is_set():
            began = time.monotonic()
            await _until(stop, progress(run, watch, children, began))
        run.interrupted = stop.is_set()
    finally:
        run.seconds = time.monotonic() - began
        for group in children:
            await stop_all(group)
        await asyncio.sleep(0.3)  # the last words of the cloud
        following.cancel()
        await asyncio.wait([following])
        if "://" in run.options.broker:
            await _clear_retained(bus, run.topics)
    return watch


async def _until(stop: asyncio.Event, work: Any) -> None:
    """Do `work` until it is done or `stop` is set; what it raises is raised."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
    elif (error := task.exception()) is not None:
        raise error


async def _start(run: Run, children: list[list[Child]]) -> None:
    devices, edges, cloud = children
    config = ["--config", str(run.folder / "megace2.toml")]
    logs, options = run.folder / "logs", run.options
    cloud.append(await Child.start("cloud", ["cloud", *config], logs / "cloud.log", {}))
    for edge in run.edge_ids:
        edges.append(await Child.start(edge, ["edge", "--id", edge, *config], logs / f"{edge}.log", {}))
    await asyncio.gather(*(child.until_ready() for child in [*cloud, *edges]))
    for number, edge in enumerate(run.edge_ids, 1):
        arguments = ["replay", run.options.data or "synthetic", "--edge", edge, "--devices", str(options.devices)]
        arguments += ["--share", f"{number}/{options.edges}", "--speed", f"{run.speed:.6g}"]
        arguments += ["--share-labels", str(SHARED_LABELS), "--stay", *config]
        blind = {"MEGACE2_REPLAY__BLIND": f"[{options.devices - 1}]"} if number == 1 and options.devices > 1 else {}
        devices.append(await Child.start(f"{edge}'s devices", arguments, logs / f"{edge}-devices.log", blind))
    await asyncio.gather(*(child.until_ready() for child in devices))


@contextlib.asynccontextmanager
async def _broker(run: Run) -> AsyncIterator[str]:
    """The broker's address, started here where it is ours."""
    options = run.options
    if options.broker == "mosquitto":
        from broker.mosquitto import MosquittoSettings, private_mosquitto

        async with private_mosquitto(MosquittoSettings()) as mosquitto:
            run.broker_name = f"mosquitto {mosquitto.version}"
            yield mosquitto.url
        return
    if options.broker != "embedded":
        run.broker_name = options.broker
        yield options.broker
        return
    run.broker_name = "embedded"
    log = run.folder / "logs" / "broker.log"
    child = await Child.start("broker", ["broker", "--port", "0"], log, {})
    try:
        await child.until_ready()
        yield next(line for line in log.read_text().splitlines() if line.startswith("mqtt://"))
    finally:
        await child.stop()


def write_settings(run: Run, url: str) -> None:
    """The one settings file of the run: with it each tier can be started again by hand."""
    options, state = run.options, run.folder / "state"
    dims = ", ".join(f"{modality} = {dim}" for modality, dim in run.dataset.dims.items())
    vectors = "" if options.vectors is None else f"vectors = {_quoted(options.vectors.expanduser().resolve())}\n"
    training = ", ".join(f"{key} = {json.dumps(value)}" for key, value in TRAINING[options.preset].items())
    text = f"""# Written by the demo: every tier of this run can be started again with --config this file.
[site]
name = "{run.topics.site}"

[broker]
url = "{url}"

[cloud]
state_dir = "{state / "cloud"}"
rule = "{options.rule}"
keep_releases = {RELEASES_SCORED[options.preset]}
durable = false  # a demo's disk need not survive a power cut
health_interval = 1.0
model = {{ preset = "{options.preset}", seed = {options.seed}, dims = {{ {dims} }} }}

[edge]
state_dir = "{state}"
health_interval = 1.0
scheduling = {{ share_labels = true }}
learning = {{ min_pause = 1.0, personalise_every = 3.0, training = {{ {training} }} }}

[device]
state_dir = "{state / "devices"}"
health_interval = 1.0

[replay]  # the same for all devices of the run: it says which rows are held out
seed = {options.seed}
split = "{options.split}"
{vectors}"""
    (run.folder / "megace2.toml").write_text(text)


def _quoted(path: Path) -> str:
    """As a string of TOML."""
    return json.dumps(str(path), ensure_ascii=False)


async def _clear_retained(bus: Bus, topics: Topics) -> None:
    """Leave nothing behind on somebody else's broker."""
    messages = await bus.subscribe(topics.everything(), limit=10_000)
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.5):
                delivery = await anext(messages)
            if delivery.retained and delivery.payload:
                await bus.publish(delivery.topic, b"", retain=True)
