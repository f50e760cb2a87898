"""TLS from files: a listener's context, and what a client's certificate says."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from broker.settings import BrokerError, TlsSettings


def make_context(settings: TlsSettings) -> ssl.SSLContext:
    """The context of a listener. Raises BrokerError, which names the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        raise BrokerError(f"certificate {settings.certificate} with key {settings.key}: {_told(error)}") from error
    if settings.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED if settings.require_certificate else ssl.CERT_OPTIONAL
        _load(context, settings.ca)
    if settings.crl is not None:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        _load(context, settings.crl)
    return context


def _load(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        raise BrokerError(f"{path}: {_told(error)}") from error


def _told(error: OSError) -> str:
    return f"it cannot be read ({error.strerror or error})"


def common_name(certificate: Mapping[str, Any] | None) -> str | None:
    """The CN of a client's certificate, as `SSLSocket.getpeercert` gives it."""
    subject: Iterable[Any] = certificate.get("subject", ()) if certificate else ()
    names = [value for part in subject for key, value in part if key == "commonName"]
    return str(names[0]) if names else None


def revoked_serials(path: Path) -> frozenset[int]:
    """The serial numbers of a CRL file. Raises BrokerError."""
    try:
        from cryptography import x509
    except ImportError as error:
        raise BrokerError("a CRL needs the extra `secure`: pip install 'megace2-iot[secure]'") from error
    try:
        return frozenset(one.serial_number for one in x509.load_pem_x509_crl(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise BrokerError(f"the CRL {path} cannot be read: {error}") from error


def serial_of(certificate: Mapping[str, Any] | None) -> int | None:
    """The serial number of a client's certificate."""
    text = certificate.get("serialNumber") if certificate else None
    return int(text, 16) if text else None
