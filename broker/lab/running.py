"""A site's broker while it runs: Mosquitto under our eyes, told of changes, and rid of the nodes that were shut out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn

from broker.lab.certificates import REVOKED
from broker.lab.mosquitto_conf import PID
from broker.lab.site import ACL, BROKER_CERTIFICATE, BROKER_KEY, CONF, DATA, PASSWORDS, PKI, Site
from broker.mosquitto_process import free_port, mosquitto_version, required_mosquitto, start_mosquitto, stop_mosquitto
from broker.server import embedded_broker
from broker.settings import AccessFiles, BrokerError, EmbeddedSettings, Listener, TlsSettings
from megace2_iot.identity import CA

Ended = Callable[[], Awaitable[NoReturn]]
START_DEADLINE = 10.0  # s
STOP_DEADLINE = 5.0  # s
POLL = 0.05  # s between two looks at a starting broker
MOMENT = 1  # days: the shortest life of a certificate


@contextlib.asynccontextmanager
async def site_mosquitto(site: Site) -> AsyncIterator[Ended]:
    """Run Mosquitto with the site's configuration; gives what waits for its end, and then raises `BrokerError`.

    Raises `BrokerError` where there is none or it does not start.
    """

    async def ended() -> NoReturn:
        raise BrokerError(f"mosquitto ended by itself with status {await process.wait()}")

    binary = required_mosquitto()
    await mosquitto_version(binary)
    for port in filter(None, (site.config.port, site.config.websocket_port)):
        free_port(site.config.bind, port)
    with contextlib.suppress(FileNotFoundError):
        (site.folder / PID).unlink()
    process = await start_mosquitto(binary, site.folder / CONF, None)
    try:
        await _wait_until_ready(process, site)
        yield ended
    finally:
        await stop_mosquitto(process, STOP_DEADLINE)
        (site.folder / PID).unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def site_embedded(site: Site) -> AsyncIterator[Ended]:
    """Run the embedded broker, in this event loop, with the same certificates, accounts and access list.

    It reads them again on SIGHUP, as Mosquitto does. Raises `BrokerError` where it cannot listen.
    """
    loop, again = asyncio.get_running_loop(), asyncio.Event()
    async with embedded_broker(embedded_settings(site)) as broker:

        async def ended() -> NoReturn:
            while True:
                await again.wait()
                again.clear()
                await broker.reload()

        loop.add_signal_handler(signal.SIGHUP, again.set)
        (site.folder / PID).write_text(f"{os.getpid()}\n")
        try:
            yield ended
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            (site.folder / PID).unlink(missing_ok=True)


def embedded_settings(site: Site) -> EmbeddedSettings:
    """What the embedded broker is told of a site, as `mosquitto_conf` tells Mosquitto."""
    config, pki, certificates = site.config, site.folder / PKI, site.config.auth == "certificates"
    tls = TlsSettings(
        pki / BROKER_CERTIFICATE,
        pki / BROKER_KEY,
        ca=pki / CA if certificates else None,
        require_certificate=certificates,
        crl=pki / REVOKED if certificates else None,
        identity_as_username=certificates,
    )
    return EmbeddedSettings(
        host=config.bind,
        port=config.port,
        tls=tls,
        listeners=(Listener(config.bind, config.websocket_port, tls, True),) if config.websocket_port else (),
        access_files=AccessFiles(
            users=None if certificates else site.folder / PASSWORDS,
            acl=site.folder / ACL,
            username_is_client_id=True,
        ),
        persistence=site.folder / DATA / "embedded.sqlite",
        max_packet_size=config.max_packet_size,
        max_keepalive=120,
    )


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
