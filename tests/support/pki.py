"""Credentials for tests: a certificate authority with its files in one folder, and lines of a password file."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """`issue` writes NAME.crt and NAME.key, `revoke` writes crl.pem anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate, self.crl = folder / "ca.crt", folder / "crl.pem"
        self._now = datetime.datetime.now(datetime.UTC)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._serials: dict[str, int] = {}
        self._revoked: list[str] = []
        made = self._sign("ca", self._key.public_key(), is_ca=True)
        self.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        self.revoke()

    def _sign(self, name: str, key: ec.EllipticCurvePublicKey, *, is_ca: bool = False) -> x509.Certificate:
        builder = x509.CertificateBuilder(_name("ca"), _name(name), key, x509.random_serial_number())
        builder = builder.not_valid_before(self._now - DAY)
        builder = builder.not_valid_after(self._now + DAY).add_extension(x509.BasicConstraints(is_ca, None), True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._sign(name, key.public_key())
        self._serials[name] = made.serial_number
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        paths[1].write_bytes(key.private_bytes(*plain))
        return paths

    def revoke(self, *names: str) -> None:
        self._revoked += names
        builder = x509.CertificateRevocationListBuilder(_name("ca"))
        builder = builder.last_update(self._now - DAY).next_update(self._now + DAY)
        for name in self._revoked:
            one = x509.RevokedCertificateBuilder(self._serials[name])
            builder = builder.add_revoked_certificate(one.revocation_date(self._now - DAY).build())
        made = builder.sign(self._key, hashes.SHA256())
        self.crl.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def client(self, name: str | None = None) -> ssl.SSLContext:
        """What a client that trusts this authority uses, with a certificate of its own where it has a name."""
        context = ssl.create_default_context(cafile=self.certificate)
        if name is not None:
            context.load_cert_chain(*self.issue(name))
        return context


def password_line(name: str, password: str, iterations: int = 1) -> str:
    """What mosquitto_passwd would write."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), b"salt", iterations)
    return f"{name}:$7${iterations}${base64.b64encode(b'salt').decode()}${base64.b64encode(digest).decode()}\n"
