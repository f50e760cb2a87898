"""What every test shares: real brokers, settings for them, and the check that no task outlives its test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from absent import skip_or_fail

from broker.mosquitto import MosquittoSettings, private_mosquitto
from broker.mosquitto_process import find_mosquitto
from broker.server import embedded_broker
from broker.settings import EmbeddedSettings

RunBroker = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def run_embedded() -> RunBroker:
    """`async with run_embedded(max_packet_size=...) as broker`."""
    return lambda **settings: embedded_broker(EmbeddedSettings(**settings))


@pytest.fixture(params=["embedded", "mosquitto"])
def run_broker(request: pytest.FixtureRequest) -> RunBroker:
    """The same, once for each kind of broker."""
    if request.param == "embedded":
        return lambda **settings: embedded_broker(EmbeddedSettings(**settings))
    if find_mosquitto() is None:
        skip_or_fail("mosquitto is not installed (apt install mosquitto)")
    return lambda **settings: private_mosquitto(MosquittoSettings(**settings))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets."""
    folder = os.environ.get("MEGACE2_DATA")
    if not folder or not Path(folder).is_dir():
        skip_or_fail("MEGACE2_DATA names no folder: no real data")
    return Path(folder or "")


@pytest_asyncio.fixture(autouse=True)
async def _no_leaked_tasks(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """A task that a test leaves behind is a failure of what it tested."""
    before = asyncio.all_tasks()
    yield
    for _ in range(20):
        left = [t for t in asyncio.all_tasks() - before - {asyncio.current_task()} if not t.done()]
        if not left:
            return
        await asyncio.sleep(0.05)
    names = ", ".join(task.get_name() for task in left)
    for task in left:
        task.cancel()
    pytest.fail(f"left running: {names}")
