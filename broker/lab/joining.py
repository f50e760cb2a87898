"""`megace2 join` on a new node: it makes its keys, and asks for admission with the token of its join string."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker.lab.certificates import new_signing_key, new_tls_key, pinned, public_part
from broker.lab.enrolment import DEADLINE, LONGEST_LINE, JoinString
from megace2_iot.identity import (
    CA,
    CERTIFICATE,
    KEY,
    PASSWORD,
    SIGNING_CERTIFICATE,
    SIGNING_KEY,
    Identity,
    write_identity,
)
from megace2_iot.problems import Problem

TAKEN = (CERTIFICATE, SIGNING_CERTIFICATE, PASSWORD)  # of what the other side sends, nothing else is written


async def join(text: str, out: Path) -> tuple[Path, Identity]:
    """Become the node of a join string; returns the folder of its new identity. Raises `Problem`."""
    ticket = JoinString.parse(text)
    authority = await _authority(ticket)
    tls, signing = new_tls_key(), new_signing_key()
    request = {
        "id": ticket.id,
        "token": ticket.token,
        "tls": public_part(tls).decode(),
        "signing": public_part(signing).decode(),
    }
    answer = await _ask(ticket, request, ssl.create_default_context(cadata=authority.decode()))
    identity, files = admission(answer, ticket)
    own = {SIGNING_KEY: signing} | ({KEY: tls} if CERTIFICATE in files else {})
    folder = out / identity.id
    write_identity(folder, identity, {**files, CA: authority, **own})
    return folder, identity


async def _authority(ticket: JoinString) -> bytes:
    """The authority's certificate, of the fingerprint that the join string pins, and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is believed yet, nor told
    answer = await _ask(ticket, {"want": "authority"}, context)
    try:
        return pinned(str(answer.get("authority", "")).encode(), ticket.authority)
    except ValueError:
        raise Problem(
            f"{ticket.host} is not the site that the join string names: somebody answers in its place"
        ) from None


def admission(answer: Mapping[str, Any], ticket: JoinString) -> tuple[Identity, dict[str, bytes]]:
    """The node's identity and files out of the answer to its request. Raises `Problem`."""
    try:
        identity = Identity.model_validate(answer["identity"])
        files = {name: str(answer["files"][name]).encode() for name in TAKEN if name in answer["files"]}
    except (KeyError, TypeError, ValueError):
        raise Problem(f"{ticket.host} did not give a whole identity: does 'megace2 broker up' run there?") from None
    if identity.id != ticket.id:
        raise Problem(f"{ticket.host} gave another node's identity: it is not taken")
    return identity, files


def read_answer(line: bytes, place: str) -> dict[str, Any]:
    """What a site says. Raises `Problem` for its refusals, and ValueError for what is no answer."""
    try:
        answer = json.loads(line)
    except RecursionError:
        raise ValueError("a nest without end") from None
    if not isinstance(answer, dict):
        raise Problem(f"{place} answers something else than a megace2 broker")
    if "error" in answer:
        raise Problem(f"{place}: {answer['error']}")
    return answer


async def _ask(ticket: JoinString, request: dict[str, str], context: ssl.SSLContext) -> dict[str, Any]:
    place = f"{ticket.host}:{ticket.port}"
    try:
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection(
                ticket.host, ticket.port, ssl=context, limit=2 * LONGEST_LINE
            )
            try:
                writer.write(json.dumps(request).encode() + b"\n")
                return read_answer(await reader.readline(), place)
            finally:
                writer.close()
    except ssl.SSLCertVerificationError as error:
        raise Problem(f"{place}: {error.verify_message}; is {ticket.host} among the --host of the site?") from None
    except (OSError, TimeoutError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "no answer in time"
        raise Problem(f"{place} does not answer ({reason}): does 'megace2 broker up' run there?") from None
