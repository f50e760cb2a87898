"""The processes behind the shaped link of table 3: a broker, and an edge with its cloud or a cloud by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from broker.mosquitto import MosquittoSettings, private_mosquitto
from broker.mosquitto_process import find_mosquitto
from megace2_iot.cli.experiments.cloud_only import CloudOnlySettings
from megace2_iot.cli.processes import Child, stop_all
from megace2_iot.features import Modality
from megace2_iot.topics import Topics

SITE, EDGE = Topics(site="table3"), "edge-1"
ONCE = 86_400  # s: the local model is distilled once, and not in the middle of a measurement


@contextlib.asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[tuple[int, str]]:
    """A broker's port on the loopback, and what it is: Mosquitto where it is installed, else the embedded one."""
    if find_mosquitto() is not None:
        async with private_mosquitto(MosquittoSettings()) as mosquitto:
            yield mosquitto.port, f"Mosquitto {mosquitto.version}"
        return
    log = folder / "broker.log"
    log.unlink(missing_ok=True)
    child = await Child.start("broker", ["broker", "--port", "0"], log, {})
    try:
        await child.until_ready()
        url = next(line for line in log.read_text().splitlines() if line.startswith("mqtt://"))
        yield int(url.rsplit(":", 1)[1]), "the embedded broker"
    finally:
        await child.stop()


@contextlib.asynccontextmanager
async def edge_cloud(
    folder: Path,
    port: int,
    preset: str,
    dims: Mapping[Modality, int],
    *,
    training: Mapping[str, Any] | None = None,
) -> AsyncIterator[None]:
    """A cloud and an edge as users run them. It holds rounds where their `training` is given; else devices answer."""
    config = ["--config", str(_settings_file(folder, port, preset, dims, training))]
    children: list[Child] = []
    try:
        children.append(await Child.start("cloud", ["cloud", *config], folder / "cloud.log", {}))
        children.append(await Child.start("edge", ["edge", "--id", EDGE, *config], folder / "edge.log", {}))
        await asyncio.gather(*(child.until_ready() for child in children))
        yield
    finally:
        await stop_all(children[1:])
        await stop_all(children[:1])


def _settings_file(
    folder: Path, port: int, preset: str, dims: Mapping[Modality, int], training: Mapping[str, Any] | None
) -> Path:
    path, rounds = folder / "megace2.toml", json.dumps(training is not None)
    answers = "local_then_edge" if training is None else "edge"
    path.write_text(
        f"""[site]
name = "{SITE.site}"
[broker]
url = "mqtt://127.0.0.1:{port}"
[cloud]
state_dir = {json.dumps(str(folder / "cloud"))}
durable = false
model = {{ preset = "{preset}", dims = {_table(dims)} }}
[edge]
state_dir = {json.dumps(str(folder / "edge"))}
learning = {{ rounds = {rounds}, adapters = false, training = {_table(training or {})} }}
scheduling = {{ answers = "{answers}" }}
distillation = {{ every = {ONCE} }}
"""
    )
    return path


def _table(values: Mapping[Any, Any]) -> str:
    """An inline table of TOML."""
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + " }"


@contextlib.asynccontextmanager
async def cloud_only(folder: Path, settings: CloudOnlySettings) -> AsyncIterator[None]:
    """A cloud that does everything, ready to take clips in."""
    module, log = "megace2_iot.cli.experiments.cloud_only", folder / "cloud-only.log"
    child = await Child.start("cloud-only", [settings.to_json()], log, {"OMP_NUM_THREADS": "1"}, module=module)
    try:
        await child.until_ready()
        yield
    finally:
        await child.stop()
