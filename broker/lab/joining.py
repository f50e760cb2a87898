"""`megace2 join` on a new node: it makes its keys, and asks for admission with the token of its join string."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from broker.lab.certificates import fingerprint, new_signing_key, new_tls_key, public_part
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

TAKEN = (CA, CERTIFICATE, SIGNING_CERTIFICATE, PASSWORD)  # of what the other side sends, nothing else is written


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
    answer = await _ask(ticket, request, ssl.create_default_context(cadata=authority))
    try:
        identity = Identity.model_validate(answer["identity"])
        files = {name: str(answer["files"][name]).encode() for name in TAKEN if name in answer["files"]}
    except (KeyError, TypeError, ValidationError):
        raise Problem(f"{ticket.host} did not give a whole identity: does 'megace2 broker up' run there?") from None
    if identity.id != ticket.id or files.get(CA) != authority.encode():
        raise Problem(f"{ticket.host} gave another node's identity, or another authority: it is not taken")
    own = {SIGNING_KEY: signing} | ({KEY: tls} if CERTIFICATE in files else {})
    folder = out / identity.id
    write_identity(folder, identity, {**files, **own})
    return folder, identity


async def _authority(ticket: JoinString) -> str:
    """The authority's certificate, of the fingerprint that the join string pins."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is believed yet, nor told
    pem = str((await _ask(ticket, {"want": "authority"}, context)).get("authority", ""))
    try:
        found = fingerprint(pem.encode())
    except ValueError:
        found = ""
    if found != ticket.authority:
        raise Problem(f"{ticket.host} is not the site that the join string names: somebody answers in its place")
    return pem


async def _ask(ticket: JoinString, request: dict[str, str], context: ssl.SSLContext) -> dict[str, Any]:
    place = f"{ticket.host}:{ticket.port}"
    try:
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection(
                ticket.host, ticket.port, ssl=context, limit=2 * LONGEST_LINE
            )
            try:
                writer.write(json.dumps(request).encode() + b"\n")
                answer = json.loads(await reader.readline())
            finally:
                writer.close()
    except ssl.SSLCertVerificationError as error:
        raise Problem(f"{place}: {error.verify_message}; is {ticket.host} among the --host of the site?") from None
    except (OSError, TimeoutError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "no answer in time"
        raise Problem(f"{place} does not answer ({reason}): does 'megace2 broker up' run there?") from None
    if not isinstance(answer, dict):
        raise Problem(f"{place} answers something else than a megace2 broker")
    if "error" in answer:
        raise Problem(f"{place}: {answer['error']}")
    return answer
