"""What the tests of whole tiers share: a store that holds release 1, made once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiers import Lab

from cloud_aggregator.cloud import CloudSettings, run_cloud
from megace2_iot.bus import BrokerSettings
from megace2_iot.topics import Topics


@pytest.fixture(scope="session")
def release_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of a cloud that made release 1 and has met nobody."""
    folder = tmp_path_factory.mktemp("release") / "cloud"

    async def make() -> None:
        settings = CloudSettings(state_dir=folder, durable=False)
        ready = asyncio.Event()
        nobody = BrokerSettings(url="mqtt://127.0.0.1:1")
        cloud = asyncio.create_task(run_cloud(settings, Topics(), nobody, ready=ready.set))
        async with asyncio.timeout(60):
            await ready.wait()
        cloud.cancel()
        await asyncio.wait([cloud])

    asyncio.run(make())
    (folder / "site").unlink()  # whose it is, whoever copies it decides
    return folder


@pytest.fixture
def make_lab(tmp_path: Path, release_1: Path) -> Callable[..., Lab]:
    """`make_lab(broker.url)`: a site whose cloud starts with release 1; a second one wants a folder of its own."""

    def make(url: str, folder: str = "") -> Lab:
        shutil.copytree(release_1, tmp_path / folder / "cloud")
        return Lab(url, tmp_path / folder)

    return make
