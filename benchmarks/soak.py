"""A lab whose parts are killed at random: is a window lost or counted twice, an update folded twice?

`python -m benchmarks.soak [--kills 100] [--broker embedded|mosquitto|amqtt] [--seed N]` runs processes of a broker, a
cloud, two edges and two devices of each, kills one of them (SIGKILL) again and again and starts it anew, then lets the
outboxes empty and reads the books: accepted = ended, nothing missing, versions without a gap, each update folded once.
Mosquitto runs with the settings that Debian ships, amqtt 0.12 by `--amqtt PYTHON`, an interpreter that has it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, machine
from device_agent.agent import Device
from device_agent.outbox import look
from device_agent.settings import DeviceSettings, outbox_path
from device_agent.windows import Window
from megace2_iot.blobs import BlobStore
from megace2_iot.bus import BrokerSettings, connect
from megace2_iot.cli.processes import Child, stop_all
from megace2_iot.cli.watching import Watch
from megace2_iot.datasets.synthetic import DIMS
from megace2_iot.problems import Problem
from megace2_iot.topics import Topics

KILLS = 20
EDGES, DEVICES = 2, 2
PAUSE = (0.2, 2.0)  # s between two kills
DOWN = (0.0, 0.8)  # s that what was killed stays down
DRAIN = 120.0  # s for the outboxes to empty
TOPICS = Topics()
SETTINGS = """
[broker]
url = "mqtt://127.0.0.1:{port}"
[cloud]
state_dir = "{folder}/cloud"
health_interval = 0.5
[edge]
state_dir = "{folder}/edges"
device = "cpu"
health_interval = 0.5
[edge.scheduling]
share_labels = true
[edge.learning]
min_pause = 0.5
training = {{ epochs = 1 }}
adapter_training = {{ epochs = 1 }}
[device]
state_dir = "{folder}/devices"
train = false
share_labels = 1.0
health_interval = 0.5
"""


@dataclass
class Lab:
    """What runs, what was killed, and what was seen."""

    folder: Path
    port: int
    broker: str
    amqtt: str = ""
    children: dict[str, Child | asyncio.subprocess.Process] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    back: dict[str, list[float]] = field(default_factory=dict)  # s until ready again, by kind

    @property
    def config(self) -> str:
        return str(self.folder / "lab.toml")

    async def start(self, name: str) -> None:
        """Start one part and wait until it is ready."""
        began, kind = time.monotonic(), name.partition("-")[0]
        if name == "broker" and self.broker != "embedded":
            self.children[name] = await self._foreign()
            await self._listening()
        else:
            arguments = {
                "broker": ["broker", "--port", str(self.port)],
                "cloud": ["cloud", "--config", self.config],
                "edge": ["edge", "--id", name, "--config", self.config],
                "devices": [
                    *("replay", "synthetic", "--devices", str(DEVICES), "--edge", name.replace("devices", "edge")),
                    *("--prefix", name.replace("devices", "cam"), "--repeat", "--speed", "20", "--config", self.config),
                ],
            }[kind]
            child = await Child.start(name, arguments, self.folder / f"{name}.log", {"OMP_NUM_THREADS": "1"})
            self.children[name] = child
            await child.until_ready()
        self.back.setdefault(kind, []).append(time.monotonic() - began)

    async def _foreign(self) -> asyncio.subprocess.Process:
        if self.broker == "amqtt":
            script = Path(__file__).with_name("amqtt_broker.py")
            return await asyncio.create_subprocess_exec(self.amqtt, str(script), str(self.port))
        conf, data = self.folder / "mosquitto.conf", self.folder / "mosquitto"
        data.mkdir(exist_ok=True)
        conf.write_text(
            f"persistence true\npersistence_location {data}/\nlog_dest none\nuser root\n"
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
        )
        binary = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if binary is None:
            raise Problem("mosquitto is not installed: sudo apt install mosquitto")
        return await asyncio.create_subprocess_exec(binary, "-c", str(conf))

    async def _listening(self) -> None:
        async with asyncio.timeout(15):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                except OSError:
                    await asyncio.sleep(0.02)

    async def kill(self, name: str, rest: float) -> None:
        """SIGKILL, and a new start after `rest` seconds."""
        child = self.children[name]
        process = child.process if isinstance(child, Child) else child
        process.send_signal(signal.SIGKILL)
        await process.wait()
        self.kills[name.partition("-")[0]] += 1
        await asyncio.sleep(rest)
        await self.start(name)

    async def stop(self, *names: str) -> None:
        chosen = [self.children.pop(name) for name in names if name in self.children]
        await stop_all([child for child in chosen if isinstance(child, Child)])
        for child in chosen:
            if not isinstance(child, Child):
                with contextlib.suppress(ProcessLookupError):
                    child.terminate()
                await child.wait()


async def soak(broker: str, kills: int, seed: int, amqtt: str = "") -> tuple[list[Row], dict[str, Any]]:
    """One run; its rows, and all that was read."""
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="megace2-soak-") as name, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        lab = Lab(Path(name), probe.getsockname()[1], broker, amqtt)
        probe.close()
        (lab.folder / "lab.toml").write_text(SETTINGS.format(port=lab.port, folder=lab.folder))
        edges = [f"edge-{number}" for number in range(1, EDGES + 1)]
        devices = [f"devices-{number}" for number in range(1, EDGES + 1)]
        try:
            for part in ("broker", "cloud", *edges, *devices):
                await lab.start(part)
            lab.back.clear()
            async with _watching(lab.port) as watch:
                await asyncio.sleep(3)
                for number in range(kills):
                    victim = dice.choice(["broker", "cloud", *edges, *devices])
                    await lab.kill(victim, dice.uniform(*DOWN))
                    await asyncio.sleep(dice.uniform(*PAUSE))
                    if number % 10 == 9:
                        print(f"  {number + 1} kills: {dict(lab.kills)}", file=sys.stderr, flush=True)
                await lab.stop(*devices)
                await _drain(lab, [f"cam-{edge}-{cam:02d}" for edge in (1, 2) for cam in (1, 2)])
                await asyncio.sleep(1)
                missing = sum(watch.nodes["edge", edge].figures.counters["windows_missing"] for edge in edges)
                again = sum(watch.nodes["edge", edge].figures.counters["inferred_again"] for edge in edges)
            found = {"missing": missing, "inferred_again": again, **_books(lab), **_ledger(lab)}
        finally:
            await lab.stop(*list(lab.children))
    return _rows(lab, found), {"broker": broker, "kills": dict(lab.kills), "back": lab.back, **found}


@contextlib.asynccontextmanager
async def _watching(port: int) -> AsyncIterator[Watch]:
    async with connect(BrokerSettings(url=f"mqtt://127.0.0.1:{port}"), "observer") as bus:
        watch = Watch(bus, TOPICS)
        running = asyncio.create_task(watch.run(), name="watch")
        try:
            yield watch
        finally:
            running.cancel()
            await asyncio.wait([running])


async def _drain(lab: Lab, ids: list[str]) -> None:
    """Run each device with nothing new to say until its outbox is empty."""

    async def nothing() -> AsyncIterator[Window]:
        return
        yield

    async def one(name: str) -> None:
        edge = f"edge-{name.split('-')[1]}"
        settings = DeviceSettings(id=name, edge=edge, state_dir=lab.folder / "devices", train=False)
        broker = BrokerSettings(url=f"mqtt://127.0.0.1:{lab.port}")
        await Device(settings, TOPICS, broker, dict(DIMS), BlobStore(settings.state_dir / "blobs", name), None).run(
            nothing()
        )

    async with asyncio.timeout(DRAIN), asyncio.TaskGroup() as tasks:
        for name in ids:
            tasks.create_task(one(name), name=name)


def _books(lab: Lab) -> dict[str, Any]:
    """The outboxes' totals, added up."""
    totals, waiting = Counter[str](), 0
    for file in sorted((lab.folder / "devices").glob("*.outbox")):
        settings = DeviceSettings(id=file.stem, state_dir=file.parent)
        stats = look.stats(outbox_path(settings))
        totals.update(stats["totals"])
        waiting += stats["windows"]
    accepted = totals.pop("accepted")
    return {
        "accepted": accepted,
        "waiting": waiting,
        "ended": dict(totals),
        "lost": accepted - waiting - totals.total(),
    }


def _ledger(lab: Lab) -> dict[str, Any]:
    """What the cloud wrote down."""
    with contextlib.closing(sqlite3.connect(lab.folder / "cloud" / "ledger.sqlite")) as db:
        releases = db.execute("SELECT version, update_id FROM releases ORDER BY version").fetchall()
        accepted = [row[0] for row in db.execute("SELECT id FROM updates WHERE verdict = 'accepted'")]
    versions, folded = [version for version, _ in releases], [update for _, update in releases if update]
    return {
        "releases": len(versions),
        "version_gaps": sum(after - before != 1 for before, after in pairwise(versions)),
        "folded_twice": len(folded) - len(set(folded)),
        "accepted_without_release": len(set(accepted) - set(folded)),
    }


def _rows(lab: Lab, found: dict[str, Any]) -> list[Row]:
    where = f"{lab.broker}, {sum(lab.kills.values())} kills"
    killed = ", ".join(f"{count} {kind}" for kind, count in sorted(lab.kills.items()))
    rows = [
        Row(f"{where}: windows accepted", found["accepted"], "", note=killed),
        Row(
            f"{where}: of them lost", found["lost"] + found["waiting"], "", target=0.0, note=json.dumps(found["ended"])
        ),
        Row(f"{where}: missing, as the edges count", found["missing"], "", target=0.0),
        Row(f"{where}: releases", found["releases"], "", note=f"inferred again: {found['inferred_again']}"),
        Row(f"{where}: gaps of versions", found["version_gaps"], "", target=0.0),
        Row(f"{where}: updates folded twice", found["folded_twice"], "", target=0.0),
        Row(f"{where}: accepted and not released", found["accepted_without_release"], "", target=0.0),
    ]
    for kind, seconds in sorted(lab.back.items()):
        target = 5.0 if kind == "cloud" else None
        rows.append(Row(f"{where}: {kind} is back, at most", max(seconds), "s", target=target))
    return rows


def measure() -> list[Row]:
    return asyncio.run(soak("embedded", KILLS, 0))[0]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--broker", choices=("embedded", "mosquitto", "amqtt"), default="embedded")
    parser.add_argument("--amqtt", default="", metavar="PYTHON", help="an interpreter that has amqtt 0.12")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.broker == "amqtt" and not chosen.amqtt:
        parser.error("--broker amqtt needs --amqtt PYTHON: python -m venv A; A/bin/pip install amqtt==0.12.1")
    rows, found = asyncio.run(soak(chosen.broker, chosen.kills, chosen.seed, chosen.amqtt))
    print(json.dumps({"machine": machine(), "seed": chosen.seed, **found}))
    for row in rows:
        print(f"{row.what}: {row.measured:g} {row.unit} {row.note}", file=sys.stderr)
    return 1 if any(row.met is False for row in rows if row.unit != "s") else 0


if __name__ == "__main__":
    sys.exit(main())
