"""Admission over the network: a node that was given a join string makes its own keys and gets its certificates.

One request a connection, a line of JSON each way, over TLS. A node that knows nothing yet asks for the authority's
certificate first, over a connection that it does not trust, and compares its fingerprint with the join string; then it
comes again, trusting that authority only, with its token and its public keys. Private keys never travel.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker.lab.certificates import fingerprint
from broker.lab.running import reload
from broker.lab.site import BROKER_CERTIFICATE, BROKER_KEY, PKI, Site, authority_pem
from broker.settings import BrokerError, port_in_use
from megace2_iot.problems import Problem

_log = logging.getLogger("megace2.enrolment")
LONGEST_LINE = 16 << 10  # bytes
DEADLINE = 10.0  # s for a whole request
MAX_CONNECTIONS = 16
PENALTY = 1.0  # s that a wrong token waits for its answer
SCHEME = "megace2"


class Request(BaseModel):
    """What a node asks. `want` = "authority" needs nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    want: str = Field("admission", pattern="^(authority|admission)$")
    id: str = Field("", max_length=32)
    token: str = Field("", max_length=64)
    tls: str = Field("", max_length=2048)  # public keys in PEM
    signing: str = Field("", max_length=2048)


class JoinString(BaseModel):
    """What a person copies to a new node: where to ask, whom to trust, and the one-time token."""

    model_config = ConfigDict(frozen=True)
    host: str
    port: int
    id: str
    authority: str  # SHA-256 of its certificate, in hexadecimal
    token: str = Field(repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}://{host}:{self.port}/{self.id}?ca={self.authority}&token={quote(self.token)}"

    @classmethod
    def parse(cls, text: str) -> JoinString:
        """Raises `Problem` where it is not whole."""
        problem = Problem("that is no join string: copy all of what 'megace2 enroll' said")
        try:
            parts = urlsplit(text.strip())
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if parts.scheme != SCHEME or not parts.hostname or not parts.port or len(query["ca"]) != 64:
                raise problem
            return cls(
                host=parts.hostname,
                port=parts.port,
                id=parts.path.strip("/"),
                authority=query["ca"].lower(),
                token=query["token"],
            )
        except (KeyError, ValueError):
            raise problem from None


def join_string(site: Site, node: str, token: str) -> str:
    """What to type on the new node, after `megace2 join`."""
    config = site.config
    authority = fingerprint(authority_pem(site.folder))
    return str(JoinString(host=config.hosts[0], port=config.enrolment_port, id=node, authority=authority, token=token))


@contextlib.asynccontextmanager
async def enrolment_service(site: Site) -> AsyncIterator[None]:
    """Admit invited nodes while the block runs. Raises `BrokerError` where the port is taken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(site.folder / PKI / BROKER_CERTIFICATE, site.folder / PKI / BROKER_KEY)
    talks: set[asyncio.Task[Any]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(talks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        talks.add(task)
        try:
            with contextlib.suppress(
                OSError, TimeoutError, ValueError
            ):  # a peer that left, is slow, or never ends a line
                async with asyncio.timeout(DEADLINE):
                    writer.write(
                        json.dumps(await _answer(site, await reader.readline(), _peer(writer))).encode() + b"\n"
                    )
                    await writer.drain()
        finally:
            talks.discard(task)
            writer.close()

    config = site.config
    try:
        server = await asyncio.start_server(
            talk,
            config.bind,
            config.enrolment_port,
            ssl=context,
            limit=LONGEST_LINE,
            ssl_handshake_timeout=DEADLINE,
        )
    except OSError as error:
        raise port_in_use(config.bind, config.enrolment_port, error) from error
    try:
        yield
    finally:
        server.close()
        for task in list(talks):
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def _peer(writer: asyncio.StreamWriter) -> str:
    return str(writer.get_extra_info("peername", ("?",))[0])


async def _answer(site: Site, line: bytes, peer: str) -> dict[str, Any]:
    try:
        request = Request.model_validate_json(line)
    except ValidationError:
        return {"error": "that is no request of megace2 join"}
    if request.want == "authority":
        return {"authority": authority_pem(site.folder).decode()}
    public = {"tls": request.tls.encode(), "signing": request.signing.encode()}
    try:
        identity, files = await asyncio.to_thread(site.admit, request.id, request.token, public)
        reload(site)
    except BrokerError as error:
        _log.warning("%s asked to join as %r: %s", peer, request.id, error)
        await asyncio.sleep(PENALTY)
        return {"error": str(error)}
    _log.info("%s joined as %s %r", peer, identity.role, identity.id)
    return {"identity": identity.model_dump(), "files": {name: content.decode() for name, content in files.items()}}
