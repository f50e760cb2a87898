"""A site's broker while it runs: Mosquitto under our eyes, told of changes, and rid of the nodes that were shut out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator

from broker.lab.mosquitto_conf import PID
from broker.lab.site import CONF, PKI, Site
from broker.mosquitto_process import mosquitto_version, required_mosquitto, start_mosquitto, stop_mosquitto
from broker.settings import BrokerError, port_in_use
from megace2_iot.identity import CA

START_DEADLINE = 10.0  # s
STOP_DEADLINE = 5.0  # s
POLL = 0.05  # s between two looks at a starting broker
MOMENT = 1  # days: the shortest life of a certificate


@contextlib.asynccontextmanager
async def site_mosquitto(site: Site) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run Mosquitto with the site's configuration. Raises `BrokerError` where there is none or it does not start."""
    binary = required_mosquitto()
    await mosquitto_version(binary)
    for port in filter(None, (site.config.port, site.config.websocket_port)):
        _check_free(site.config.bind, port)
    with contextlib.suppress(FileNotFoundError):
        (site.folder / PID).unlink()
    process = await start_mosquitto(binary, site.folder / CONF, None)
    try:
        await _wait_until_ready(process, site)
        yield process
    finally:
        await stop_mosquitto(process, STOP_DEADLINE)
        (site.folder / PID).unlink(missing_ok=True)


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise port_in_use(host, port, error) from error


async def _wait_until_ready(process: asyncio.subprocess.Process, site: Site) -> None:
    deadline = asyncio.get_running_loop().time() + START_DEADLINE
    while not await answers(site):
        if process.returncode is not None:
            raise BrokerError(f"mosquitto ended with status {process.returncode} at its start; what it said is above")
        if asyncio.get_running_loop().time() > deadline:
            raise BrokerError(f"mosquitto did not answer within {START_DEADLINE:g} s on port {site.config.port}")
        await asyncio.sleep(POLL)


async def answers(site: Site) -> bool:
    """Whether a broker with this site's certificate listens on its port, here on this machine."""
    context = ssl.create_default_context(cafile=site.folder / PKI / CA)
    context.check_hostname = False  # it may be bound to an address that is none of its names
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(local_address(site), site.config.port, ssl=context)
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()
    except ssl.SSLCertVerificationError:
        return False
    except ssl.SSLError:
        return True  # it wants a certificate: that is ours
    except (OSError, TimeoutError):
        return False
    return True


def local_address(site: Site) -> str:
    """Where its own machine reaches it."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(site.config.bind, site.config.bind)


# -- changes while it runs --------------------------------------------------------------
def running_pid(site: Site) -> int | None:
    """The process id of the site's Mosquitto, where it runs."""
    try:
        pid = int((site.folder / PID).read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def reload(site: Site) -> bool:
    """Have a running broker read who may come in; False where none runs: it reads that when it starts."""
    pid = running_pid(site)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError:
        raise BrokerError(f"mosquitto ({pid}) runs as another user: do this as the one who runs the broker") from None
    return True
