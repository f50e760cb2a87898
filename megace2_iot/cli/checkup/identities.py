"""A node's identity in an enrolled site, and what its broker says to it.

MQTT is not spoken: another connection under the same identity would end that of the node, which may be running.
"""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

from megace2_iot.bus import BrokerSettings
from megace2_iot.cli.checkup.check import Check
from megace2_iot.identity import CA, CERTIFICATE, NODE, SIGNING_CERTIFICATE, Identity, load_identity

PATIENCE = 3.0  # s for the handshake
REFUSAL = 0.5  # s: in TLS 1.3 a client hears only after its handshake that its certificate will not do
SOON = datetime.timedelta(days=30)
WHAT = {CERTIFICATE: "certificate", SIGNING_CERTIFICATE: "signing certificate", CA: "authority"}


def check_identities(settings: BrokerSettings) -> list[Check]:
    """Of a folder of one node, or of several. Raises `Problem` for one that cannot be used."""
    assert settings.identity is not None
    one = settings.identity
    folders = [one] if (one / NODE).exists() else sorted(path.parent for path in one.glob(f"*/{NODE}"))
    now = datetime.datetime.now(datetime.UTC)
    identities = [load_identity(folder) for folder in folders]
    checks = [
        check for node, folder in zip(identities, folders, strict=True) for check in check_identity(node, folder, now)
    ]
    known, _ = settings.known_as(identities[0].id)
    return checks + asyncio.run(check_handshake(known, now))


def check_identity(identity: Identity, folder: Path, now: datetime.datetime) -> list[Check]:
    """How long its certificates last; `now` has a time zone."""
    try:
        from cryptography import x509
    except ImportError:
        return [Check("identity", identity.id, "its end not looked at: the extra [secure] is missing", here=False)]
    checks = [Check("identity", identity.id, f"{identity.role} of site {identity.site}, in {folder}")]
    for name, what in WHAT.items():
        if not (folder / name).exists():  # a site of passwords has no client certificates
            continue
        renew = f"new keys, beside the broker: megace2 enroll {identity.id} --renew"
        advice = "a new site, and all its nodes again: megace2 broker init" if name == CA else renew
        try:
            ends = x509.load_pem_x509_certificate((folder / name).read_bytes()).not_valid_after_utc
        except (OSError, ValueError) as error:
            checks.append(Check("identity", what, f"cannot be read: {error}", renew, needed=True))
            continue
        checks.append(_until(what, ends, now, advice))
    return checks


def _until(what: str, ends: datetime.datetime, now: datetime.datetime, advice: str) -> Check:
    """Needed where it ended, advised in its last days."""
    left = ends - now
    if left <= datetime.timedelta():
        return Check("identity", what, f"ended on {ends:%Y-%m-%d}", advice, needed=True)
    found = f"until {ends:%Y-%m-%d}, {left.days} days"
    return Check("identity", what, found, advice if left < SOON else "")


async def check_handshake(settings: BrokerSettings, now: datetime.datetime, patience: float = PATIENCE) -> list[Check]:
    """The handshake of TLS with the node's own certificate, where it has one."""
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection(settings.host, settings.port, ssl=settings.tls())
    except ssl.SSLCertVerificationError as error:
        advice = (
            f"{settings.url} is not the broker this node was enrolled for, or not one of its names "
            f"({error.verify_message}): mend [broker] url; its names were given to 'megace2 broker init --host'"
        )
        return [Check("broker", settings.url, "its certificate does not fit", advice, needed=True)]
    except (OSError, TimeoutError) as error:
        reason = str(error) or f"no answer within {patience:g} s"
        advice = f"no way to {settings.url} ({reason}): start it with 'megace2 broker up', or mend [broker] url"
        return [Check("broker", settings.url, "not reached", advice, needed=True)]
    try:
        certificate = writer.get_extra_info("peercert") or {}
        refused = await _refused(reader)
    finally:
        writer.transport.abort()
    if refused:
        advice = (
            f"{settings.url} refuses this node's certificate ({refused}): see beside the broker, with "
            "'megace2 broker list', whether it was revoked, and enroll it again"
        )
        return [Check("broker", settings.url, "refuses this node", advice, needed=True)]
    ends = datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), datetime.UTC)
    return [
        Check("broker", settings.url, "reached, TLS agreed; MQTT not tried, as the node may be running"),
        _until("broker's certificate", ends, now, "set up a new site: megace2 broker init"),
    ]


async def _refused(reader: asyncio.StreamReader) -> str:
    """Why the broker closes; empty where it waits for the first packet."""
    try:
        async with asyncio.timeout(REFUSAL):
            return "closed" if not await reader.read(1) else ""
    except TimeoutError:
        return ""
    except OSError as error:
        return getattr(error, "reason", None) or str(error)
