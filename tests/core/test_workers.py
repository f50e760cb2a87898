"""Child processes: answers, refusals, deaths, and the end with their parent."""

import asyncio
import os
import sys

import numpy as np
import pytest

from megace2_iot.workers import WorkerError, serve, worker


def main() -> None:
    """The child of these tests."""

    def add(x: np.ndarray, y: float) -> dict[str, np.ndarray]:
        print("this must not break a frame")
        return {"sum": x + np.float32(y)}

    def refuse() -> dict[str, int]:
        raise ValueError("not today")

    def die() -> dict[str, int]:
        os._exit(7)

    serve({"add": add, "refuse": refuse, "die": die})


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))


async def test_a_child_answers_and_refuses():
    """Arrays go both ways, a ValueError comes back as its text, and the child lives on."""
    async with worker("test_workers") as child:
        assert (await child.call("add", x=np.ones(3, np.float32), y=1.5))["sum"].tolist() == [2.5] * 3
        with pytest.raises(WorkerError, match="not today"):
            await child.call("refuse")
        with pytest.raises(WorkerError, match="unknown task"):
            await child.call("nothing")
        assert len((await child.call("add", x=np.ones(1, np.float32), y=0.0))["sum"]) == 1


async def test_a_dead_child_is_an_error():
    """Its status is told, nobody waits for ever."""
    async with worker("test_workers") as child:
        with pytest.raises(WorkerError, match="status 7"):
            await child.call("die")


async def test_a_child_ends_when_its_input_closes():
    """No learner outlives a device that was killed."""
    async with worker("test_workers") as child:
        assert child._process is None, "it is started by the first request"
        await child.call("add", x=np.ones(1, np.float32), y=0.0)
        process = child._process
    assert process is not None
    assert process.returncode == 0


async def test_cancelling_a_call_ends_the_child():
    """Half a frame cannot be taken back."""
    async with worker("test_workers") as child:
        call = asyncio.ensure_future(child.call("add", x=np.ones(2_000_000, np.float32), y=0.0))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


if __name__ == "__main__":
    sys.exit(main())
