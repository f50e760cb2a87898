"""A site's certificate authority: it certifies the broker, the nodes' TLS keys and their signing keys, and revokes.

TLS keys are EC P-256, which every MQTT client understands; signing keys are ed25519. A certificate for signing does
not open a connection, nor does one for TLS sign a message: each says in its extended key usage what it is for.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.settings import BrokerError
from megace2_iot.identity import write_private

Purpose = Literal["server", "client", "signing"]
USAGE = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "signing": ExtendedKeyUsageOID.CODE_SIGNING,
}
LIFETIME = (
    3650  # days of the authority, the broker and the list of the revoked: past its date it would refuse everybody
)
BACKDATED = datetime.timedelta(days=1)  # a device that just booted may have the clock of yesterday
KEY, CERTIFICATE, REVOKED = "ca.key", "ca.crt", "crl.pem"


def new_tls_key() -> bytes:
    """A new private key for TLS, in PEM."""
    return _private_pem(ec.generate_private_key(ec.SECP256R1()))


def new_signing_key() -> bytes:
    """A new private key for signing messages, in PEM."""
    return _private_pem(ed25519.Ed25519PrivateKey.generate())


def public_part(private_pem: bytes) -> bytes:
    """The public key of a private one, both in PEM."""
    from cryptography.hazmat.primitives.serialization import PublicFormat

    public = load_pem_private_key(private_pem, None).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(certificate_pem: bytes) -> str:
    """SHA-256 of a certificate, in hexadecimal."""
    return hashlib.sha256(x509.load_pem_x509_certificate(certificate_pem).public_bytes(Encoding.DER)).hexdigest()


def pinned(pem: bytes, wanted: str) -> bytes:
    """The certificate with this fingerprint alone: of a second one behind it, TLS would make another authority.

    Raises ValueError where the first in `pem` is another.
    """
    try:
        found = x509.load_pem_x509_certificate(pem)
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from None
    alone = found.public_bytes(Encoding.PEM)
    if fingerprint(alone) != wanted:
        raise ValueError("a certificate with another fingerprint")
    return alone


class Authority:
    """The authority of one site, in a folder of its own; its key is readable by its owner only."""

    def __init__(self, folder: Path) -> None:
        """Open one. Raises `BrokerError` where it is missing or damaged."""
        try:
            key = load_pem_private_key((folder / KEY).read_bytes(), None)
            self.pem = (folder / CERTIFICATE).read_bytes()
            self._certificate = x509.load_pem_x509_certificate(self.pem)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BrokerError(f"{folder} holds no certificate authority that can be used: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise BrokerError(f"{folder / KEY} is no key of a certificate authority")
        self._key, self._folder = key, folder

    @classmethod
    def create(cls, folder: Path, site: str) -> Authority:
        """Make a new one, with nobody revoked."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, site),
                x509.NameAttribute(NameOID.COMMON_NAME, f"{site} certificate authority"),
            ]
        )
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # certificates and lists
        built = (
            _builder(name, name, key.public_key(), LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / KEY, _private_pem(key))
        (folder / CERTIFICATE).write_bytes(built.public_bytes(Encoding.PEM))
        authority = cls(folder)
        authority.revoke(())
        return authority

    def certify(
        self,
        public_pem: bytes,
        node: str,
        role: str,
        site: str,
        purpose: Purpose,
        *,
        days: int,
        hosts: Iterable[str] = (),
    ) -> tuple[bytes, int]:
        """A certificate (PEM) for a public key, and its serial number. Raises `BrokerError` for another kind of key."""
        public = _public_key(public_pem, purpose)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, site),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
                x509.NameAttribute(NameOID.COMMON_NAME, node),
            ]
        )
        builder = _builder(subject, self._certificate.subject, public, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([USAGE[purpose]]), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(authority, critical=False)
        if names := [_general_name(host) for host in hosts]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        built = builder.sign(self._key, hashes.SHA256())
        return built.public_bytes(Encoding.PEM), built.serial_number

    def revoke(self, serials: Iterable[int]) -> None:
        """Write the list of all certificates that are not valid any more."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._certificate.subject)
        builder = builder.last_update(now - BACKDATED).next_update(now + datetime.timedelta(days=LIFETIME))
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - BACKDATED)
            builder = builder.add_revoked_certificate(entry.build())
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        part = self._folder / f".{REVOKED}.part"
        part.write_bytes(pem)
        part.replace(self._folder / REVOKED)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _public_key(pem: bytes, purpose: Purpose) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BrokerError("that is no public key in PEM") from None
    if purpose == "signing" and isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if purpose != "signing" and isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return key
    raise BrokerError("TLS keys are EC P-256, and signing keys are ed25519")


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
