"""The end of a node that was shut out: its connection, its session, and what it left retained."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt

from broker.lab.access_list import KEEPER
from broker.lab.certificates import new_tls_key, public_part
from broker.lab.registry import Enrolled
from broker.lab.running import local_address
from broker.lab.site import KEEPER_PASSWORD, Site
from broker.settings import BrokerError
from megace2_iot.codec import DecodeError
from megace2_iot.identity import CA, CERTIFICATE, KEY, tls_context, write_private
from megace2_iot.messages import State
from megace2_iot.signing import SIGNED_KINDS, signer_of
from megace2_iot.topics import Topics

MOMENT = 1  # days: the shortest life of a certificate
TIMEOUT = 5.0  # s for a connection
QUIET = 0.3  # s without another retained message after which all have come


async def evict(site: Site, node: Enrolled) -> None:
    """End the connection and the session of a node that was shut out, which a reload of certificates does not do.

    We connect under its name, with a certificate that lives for this moment, which takes its connection over; it
    cannot come back. Then its state becomes `offline`, and the pointers and configurations that it signed go.
    Connections of nodes with passwords are ended by the reload itself, without their wills.
    """
    try:
        if site.config.auth == "certificates":
            async with _connection(site, node.id, node.role):
                pass
        async with _connection(site, KEEPER, "keeper") as keeper:
            await _clear_up(keeper, site, node)
    except aiomqtt.MqttError as error:
        raise BrokerError(
            f"{node.id!r} cannot come in again, but its connection could not be ended ({error}): restart the broker"
        ) from None


@contextlib.asynccontextmanager
async def _connection(site: Site, name: str, role: str) -> AsyncIterator[aiomqtt.Client]:
    """A connection under any name, as only the authority can make it; in a site of passwords, the keeper's."""
    passwords = site.config.auth == "passwords"
    async with aiomqtt.Client(
        local_address(site),
        site.config.port,
        identifier=name,
        username=name if passwords else None,
        password=(site.folder / KEEPER_PASSWORD).read_text() if passwords else None,
        tls_context=_passport(site, name, role),
        clean_session=True,
        timeout=TIMEOUT,
    ) as client:
        yield client


def _passport(site: Site, name: str, role: str) -> ssl.SSLContext:
    authority, key = site.authority, new_tls_key()
    pem, _ = authority.certify(public_part(key), name, role, site.config.name, "client", days=MOMENT)
    with tempfile.TemporaryDirectory(prefix="megace2-") as folder:
        files = Path(folder)
        write_private(files / KEY, key)
        (files / CERTIFICATE).write_bytes(pem)
        (files / CA).write_bytes(authority.pem)
        context = tls_context(files)
    context.check_hostname = False  # it may be bound to an address that is none of its names
    return context


async def _clear_up(keeper: aiomqtt.Client, site: Site, node: Enrolled) -> None:
    """Say that it is offline, and take back what it signed and left retained."""
    topics = site.config.topics()
    loop = asyncio.get_running_loop()
    await keeper.subscribe(topics.everything(), qos=1)
    last = loop.time()
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout_at(last + QUIET):
                message = await anext(aiter(keeper.messages))
            if message.retain:
                last = loop.time()
                await _take_back(keeper, topics, node.id, str(message.topic), bytes(message.payload))


async def _take_back(keeper: aiomqtt.Client, topics: Topics, node: str, topic: str, payload: bytes) -> None:
    """One retained message, if it is the node's."""
    with contextlib.suppress(ValueError, DecodeError):
        address = topics.parse(topic)
        if signer_of(address)[1] != node:
            return
        if address.kind == State.kind:
            left = State.decode(payload).model_copy(update={"state": "offline", "detail": "revoked"})
            await keeper.publish(topic, left.encode(), qos=1, retain=True)
        elif address.kind in SIGNED_KINDS:
            await keeper.publish(topic, b"", qos=1, retain=True)
