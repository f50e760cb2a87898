"""The authority that a new node pins is the one of its join string, and no other that somebody adds to it."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="a site needs the extra `secure`")
from sites import make_site

from broker.lab.certificates import Authority, fingerprint, new_tls_key, pinned, public_part
from broker.lab.enrolment import join_string
from broker.lab.joining import join
from broker.lab.registry import Enrolled
from broker.lab.site import BROKER_CERTIFICATE, BROKER_KEY, PKI, authority_pem
from broker.settings import BrokerError
from megace2_iot.problems import Problem


async def test_a_second_authority_behind_the_pinned_one_is_not_believed(tmp_path: Path) -> None:
    """Protects the token from who answers in the site's place, and adds an authority of his own to the site's."""
    site, impostor = make_site(tmp_path), make_site(tmp_path, "impostor")
    text = join_string(site, "cam-09", site.invite(Enrolled(id="cam-09", role="device")))
    both = (authority_pem(site.folder) + authority_pem(impostor.folder)).decode()
    heard = list[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())
        writer.write(json.dumps({"authority": both}).encode() + b"\n")
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(impostor.folder / PKI / BROKER_CERTIFICATE, impostor.folder / PKI / BROKER_KEY)
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Problem, match="certificate"):
            await join(text.replace(str(site.config.enrolment_port), str(port)), tmp_path / "joined")
    assert [json.loads(line) for line in heard] == [{"want": "authority"}]


def test_what_stands_around_the_pinned_certificate_is_left_out(tmp_path: Path) -> None:
    """Protects the file that a node trusts for ten years: one certificate, of the fingerprint that was asked for."""
    own, other = (authority_pem(make_site(tmp_path, name).folder) for name in ("own", "other"))
    assert pinned(b"hello\n" + own + other, fingerprint(own)) == own
    for wrong in (other + own, b"", b"-----BEGIN CERTIFICATE-----\n", own[:-40]):
        with pytest.raises(ValueError, match=r"."):
            pinned(wrong, fingerprint(own))


def test_a_key_that_nobody_can_use_is_refused_in_words(tmp_path: Path) -> None:
    """Protects the service from an invited node with a key on an unknown curve: it is told, and nothing breaks."""
    authority = Authority.create(tmp_path / "pki", "lab")
    sound = public_part(new_tls_key())
    # the last byte of the object identifier of P-256 (1.2.840.10045.3.1.7) made one of no curve
    der = base64.b64decode(b"".join(sound.splitlines()[1:-1])).replace(
        bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030177")
    )
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(der) + b"-----END PUBLIC KEY-----\n"
    with pytest.raises(BrokerError, match="public key"):
        authority.certify(pem, "cam-1", "device", "lab", "client", days=1)
