"""Running a Mosquitto of our own: configuration, start, errors, and the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from wire import Wire

from broker import BrokerError, EmbeddedSettings, MosquittoSettings, embedded_broker, private_mosquitto
from broker.mosquitto import mosquitto_config
from broker.mosquitto_process import find_mosquitto

if find_mosquitto() is None and not os.environ.get("CI"):
    pytest.skip("mosquitto is not installed (apt install mosquitto)", allow_module_level=True)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def gone(pid: int) -> bool:
    for _ in range(250):
        if not alive(pid):
            return True
        await asyncio.sleep(0.02)
    return False


async def test_it_answers_on_its_own_port_and_ends_with_us() -> None:
    """Protects the machine: a private broker leaves no process and no files behind."""
    async with private_mosquitto() as broker, Wire(broker.port, "dev") as device:
        await device.publish("t", b"x")
        assert broker.url == f"mqtt://127.0.0.1:{broker.port}"
        assert broker.version.count(".") == 2
        assert alive(broker.pid)
    assert await gone(broker.pid)


async def test_it_ends_when_its_parent_is_killed() -> None:
    """Protects the machine when nobody could clean up: SIGKILL leaves no broker behind."""
    program = (
        "import asyncio, broker\n"
        "async def main():\n"
        "    async with broker.private_mosquitto() as mosquitto:\n"
        "        print(mosquitto.pid, flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    await parent.wait()
    assert await gone(pid)


async def test_retained_messages_survive_in_its_directory(tmp_path: Path) -> None:
    """Protects state over a restart of the broker, where a directory was given."""
    settings = MosquittoSettings(persistence=tmp_path)
    async with private_mosquitto(settings) as broker, Wire(broker.port, "dev") as device:
        await device.publish("t", b"kept", retain=True)
    async with private_mosquitto(settings) as broker, Wire(broker.port, "dev") as device:
        await device.subscribe(("t", 1))
        assert (await device.receive()).payload == b"kept"


async def test_its_death_at_the_start_is_explained(tmp_path: Path) -> None:
    """Protects the user's time: the last lines of the broker's log are in the error."""
    binary = tmp_path / "mosquitto"
    binary.write_text(
        "#!/bin/sh\n[ $1 = -h ] && echo mosquitto version 2.0.11 || { echo Error: no luck >&2; exit 3; }\n"
    )
    binary.chmod(0o700)
    with pytest.raises(BrokerError, match="ended with status 3 at its start:\nError: no luck"):
        async with private_mosquitto(MosquittoSettings(binary=binary)):
            pass


async def test_a_port_in_use_is_not_taken_for_our_broker() -> None:
    """Protects against talking to another broker that happens to listen there."""
    async with embedded_broker(EmbeddedSettings()) as other:
        with pytest.raises(BrokerError, match="is in use"):
            async with private_mosquitto(MosquittoSettings(port=other.port)):
                pass


async def test_a_missing_binary_says_how_to_get_one(tmp_path: Path) -> None:
    """Protects the first minute: the error names the package, and the way without it."""
    with pytest.raises(BrokerError, match=r"apt install mosquitto(.|\n)*embedded"):
        async with private_mosquitto(MosquittoSettings(binary=tmp_path / "mosquitto")):
            pass


async def test_its_sudden_death_does_not_hang_us() -> None:
    """Protects the end of the programme when the broker has already gone."""
    async with asyncio.timeout(5), private_mosquitto() as broker:
        os.kill(broker.pid, signal.SIGKILL)
        assert await gone(broker.pid)


def test_the_configuration_is_loopback_and_bounded(tmp_path: Path) -> None:
    """Protects the network: anonymous access is for the loopback, and the packet limit is never 0."""
    text = mosquitto_config(MosquittoSettings(persistence=tmp_path), 1884, tmp_path)
    assert "listener 1884 127.0.0.1\n" in text
    assert "max_packet_size 1048576\n" in text
    assert f"persistence_location {tmp_path}/\nautosave_on_changes true\n" in text
    for wrong in ({"host": "0.0.0.0"}, {"max_packet_size": 0}):
        with pytest.raises(BrokerError):
            MosquittoSettings(**wrong)
