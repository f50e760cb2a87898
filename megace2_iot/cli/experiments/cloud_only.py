"""The cloud that does everything: takes raw clips in, extracts their features, runs the model, answers.

`python -m megace2_iot.cli.experiments.cloud_only JSON` runs one until its standard input closes. It extracts with the
devices' own code, one clip a core, and answers with the edge's own predictor, so that table 3 compares where the work
is done and not how.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megace2_iot.bus import BrokerSettings, Bus, connect
from megace2_iot.cli.experiments.extracting import Extractor, Sequences, on_cores, replayed
from megace2_iot.cli.experiments.uploads import RawAnswer, RawChunk, Uploads
from megace2_iot.examples import Embedded
from megace2_iot.features import Modality
from megace2_iot.service import run, tell_ready
from megace2_iot.topics import CLOUD, Topics

MAX_BATCH = 32  # as an edge's
INBOX = 8192  # chunks: 512 MiB, more than any cell's users have on their way


@dataclass(frozen=True, slots=True)
class CloudOnlySettings:
    """What a cloud is started with."""

    url: str
    site: str
    preset: str
    dims: Mapping[Modality, int]
    cores: int
    clips: str = ""  # a folder whose clips' extraction is replayed; empty: it is done
    seconds: Sequence[float] = ()  # that each of them takes

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Model:
    """The edge's predictor behind a queue, in one thread: what waits is answered together."""

    def __init__(self, preset: str, dims: Mapping[Modality, int]) -> None:
        from cloud_aggregator.trainer import Trainer
        from edge_gateway.predictor import Predictor
        from megace2_iot.stem import Stem
        from megace2_iot.tensors import decode_tensors

        release = Trainer().first(preset, dims, 0, "")  # an edge's release 1 of the same preset
        tensors, metadata = decode_tensors(release["stem"])
        self._stem = Stem.from_tensors(tensors, {"mult_compat": metadata.get("mult_compat") == "true"})
        self._predictor = Predictor(threads=1)
        self._predictor.load("stem", release["config"], release["base"], 1)
        self._waiting: asyncio.Queue[tuple[Any, float, asyncio.Future[tuple[float, float, float]]]] = asyncio.Queue()

    async def answer(self, features: Sequences) -> tuple[float, float, float]:
        """Score, s in the queue, s of the batch."""
        future: asyncio.Future[tuple[float, float, float]] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((features, time.monotonic(), future))
        return await future

    async def run(self) -> None:
        """Answer for ever."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "model") as thread:
            while True:
                batch = [await self._waiting.get()]
                while len(batch) < MAX_BATCH and not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                began = time.monotonic()
                scores = await loop.run_in_executor(thread, self._scores, [features for features, _, _ in batch])
                took = time.monotonic() - began
                for (_, since, future), score in zip(batch, scores, strict=True):
                    if not future.done():
                        future.set_result((score, began - since, took))

    def _scores(self, batch: list[Sequences]) -> list[float]:
        embedded: list[Embedded] = [{m: self._stem.embed(m, values) for m, values in f.items()} for f in batch]
        found: list[float] = self._predictor.run("stem", embedded).scores.tolist()
        return found


async def serve(settings: CloudOnlySettings, folder: Path) -> None:
    """Take clips in until cancelled."""
    model = await asyncio.to_thread(Model, settings.preset, settings.dims)
    if settings.clips:
        clips = Path(settings.clips)
        extractor = await asyncio.to_thread(replayed, settings.cores, clips, settings.seconds, folder)
        await _take_in(settings, model, extractor)
        return
    async with on_cores(settings.cores, folder) as cores:
        await _take_in(settings, model, cores)


async def _take_in(settings: CloudOnlySettings, model: Model, extractor: Extractor) -> None:
    topics, uploads = Topics(site=settings.site), Uploads()
    async with connect(BrokerSettings(url=settings.url), CLOUD) as bus, asyncio.TaskGroup() as tasks:
        chunks = await bus.subscribe(topics.devices_of(CLOUD, RawChunk.kind), limit=INBOX)
        await bus.wait_connected(10)
        tasks.create_task(model.run(), name="model")
        tell_ready()
        async for delivery in chunks:
            received, user = time.time(), topics.parse(delivery.topic).node
            chunk = RawChunk.decode(delivery.payload)
            if (files := uploads.add(user, chunk)) is not None:
                answering = _answer(files, extractor, model, chunk.clip, received)
                work = _tell(bus, topics.device_down(user, RawAnswer.kind, CLOUD), answering)
                tasks.create_task(work, name=f"{user}:{chunk.clip}")


async def _tell(bus: Bus, topic: str, answering: Awaitable[RawAnswer]) -> None:
    await bus.publish(topic, (await answering).encode())


async def _answer(
    files: Mapping[str, bytes], extractor: Extractor, model: Model, clip: int, received: float
) -> RawAnswer:
    began = time.monotonic()
    features, generation = await extractor.extract(files)
    waited = max(0.0, time.monotonic() - began - generation)
    score, queue, inference = await model.answer(features)
    return RawAnswer(
        clip=clip,
        score=score,
        received_at=received,
        answered_at=time.time(),
        generation=generation,
        queue=waited + queue,
        inference=inference,
    )


def main() -> None:
    settings = CloudOnlySettings(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory(prefix="megace2-cloud-only-") as folder:
        sys.exit(run(lambda: serve(settings, Path(folder)), "cloud-only"))


if __name__ == "__main__":
    main()
