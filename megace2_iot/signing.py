"""Signed messages of an enrolled site: what decides how nodes behave and what they learn carries its sender's name.

    4 bytes  b"M2S\\x01"   magic and version
    8 bytes  stamp        rises with everything that this node ever signed (big endian)
    2 bytes  length       of the certificate (big endian)
    ...      certificate  DER: an ed25519 key, the node's id and role, signed by the site's authority
    64 bytes signature    over a label, the topic, the stamp and the body
    rest     body         the message's envelope

The bytes are signed, never what they decode to, and they are judged before they are decoded. The topic is signed too,
so that nothing said to one node can be said again to another; of what the sender said before on a topic, nothing is
taken that is older than the newest seen (a retained message comes again with the same stamp, and is taken). Which node
must have signed follows from the topic. Source: RFC 8032 (ed25519).
"""

from __future__ import annotations

import struct
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from megace2_iot.codec import DecodeError
from megace2_iot.identity import CA, SIGNING_CERTIFICATE, SIGNING_KEY, Identity, write_private
from megace2_iot.problems import Problem
from megace2_iot.topics import CLOUD, Address

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAGIC: Final = b"M2S\x01"
LABEL: Final = b"megace2 signed message 1\x00"
SIGNATURE: Final = 64  # bytes
LONGEST_CERTIFICATE: Final = 2048  # bytes
HEAD: Final = struct.Struct(">4sQH")
SIGNED_KINDS: Final = frozenset(("model", "local_model", "config", "round", "update", "verdict"))
STAMPS = "signing.stamp"  # beside the key: no stamp below the number in it will be used again
RESERVED = 1 << 20  # stamps taken at a time: a write for so many messages, and the clock's milliseconds catch up
TOPICS = 4096  # whose newest stamps are remembered
CERTIFICATES = 512  # of other nodes, whose keys are remembered


def signer_of(address: Address) -> tuple[str, str]:
    """Role and id of the node that may speak on a topic."""
    if address.direction == "dn":
        return (CLOUD, CLOUD) if address.peer == CLOUD else ("edge", address.peer)
    return address.tier, address.node


class Signer:
    """Signs in the name of one node; made from its identity's folder."""

    def __init__(self, folder: Path) -> None:
        """Raises `Problem` where the key cannot be used or `cryptography` is not installed."""
        self._path = folder / STAMPS
        self._key, self._certificate = _own_key(folder)
        self._next = self._limit = 0

    def sign(self, topic: str, body: bytes) -> bytes:
        """The signed form of `body` for `topic`."""
        stamp = self._stamp()
        signature = self._key.sign(_signed(topic, stamp, body))
        return HEAD.pack(MAGIC, stamp, len(self._certificate)) + self._certificate + signature + body

    def _stamp(self) -> int:
        """Larger than every one before, whatever the clock does: some are reserved on disk before they are used."""
        if self._next >= self._limit:
            try:
                used = int(self._path.read_text()) if self._path.exists() else 0
                self._next = max(used, time.time_ns() // 1_000_000)
                self._limit = self._next + RESERVED
                write_private(self._path, f"{self._limit}\n".encode())
            except (OSError, ValueError) as error:
                raise Problem(f"{self._path} cannot be used ({error}): without it nothing may be signed") from None
        self._next += 1
        return self._next - 1


class Verifier:
    """Judges what is signed, by the site's authority; remembers the newest stamp of each topic."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        """Raises `Problem` where the authority's certificate cannot be used or `cryptography` is not installed."""
        self._authority = _certificate(folder / CA)
        self._site = identity.site
        self._newest: OrderedDict[str, int] = OrderedDict()
        self._known: OrderedDict[bytes, tuple[Ed25519PublicKey, str, str, float, float]] = OrderedDict()

    def open(self, topic: str, address: Address, data: bytes) -> bytes:
        """The body of a message on `topic`; raises `DecodeError` where it is unsigned, forged, or older than known."""
        if len(data) < HEAD.size + SIGNATURE or not data.startswith(MAGIC):
            raise DecodeError("it is not signed, and this site takes only what is")
        _, stamp, length = HEAD.unpack_from(data)
        begin = HEAD.size + length
        if length > LONGEST_CERTIFICATE or len(data) < begin + SIGNATURE:
            raise DecodeError("its signature is damaged")
        key = self._key_of(data[HEAD.size : begin], *signer_of(address))
        body = data[begin + SIGNATURE :]
        _verify(key, data[begin : begin + SIGNATURE], _signed(topic, stamp, body))
        self._check_stamp(topic, stamp)
        return body

    def _check_stamp(self, topic: str, stamp: int) -> None:
        if stamp < self._newest.get(topic, 0):
            raise DecodeError("it is a repetition of something older")
        self._newest[topic] = stamp
        self._newest.move_to_end(topic)
        if len(self._newest) > TOPICS:
            self._newest.popitem(last=False)

    def _key_of(self, der: bytes, role: str, node: str) -> Ed25519PublicKey:
        """The key of a certificate that this site's authority gave to `node` as a `role`."""
        found = self._known.get(der)
        if found is None:
            found = self._known[der] = _read_certificate(der, self._authority, self._site)
            if len(self._known) > CERTIFICATES:
                self._known.popitem(last=False)
        key, its_node, its_role, begins, ends = found
        if (its_node, its_role) != (node, role):
            raise DecodeError(f"it is signed by {its_role} {its_node!r}, and only {role} {node!r} may say this")
        if not begins <= time.time() <= ends:
            raise DecodeError(f"the certificate of {node!r} is not valid at this time: renew it, or check this clock")
        return key


class Seal:
    """Signs what one node says and opens what it hears, where the kind of message asks for it."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        """Raises `Problem` where the identity's keys cannot be used."""
        self._topics = identity.topics()
        self._signer = Signer(folder) if (folder / SIGNING_KEY).exists() else None
        self._verifier = Verifier(folder, identity)

    def address(self, topic: str) -> Address | None:
        """Where a message must come from that is signed; None for one that needs no signature."""
        try:
            address = self._topics.parse(topic)
        except ValueError:
            return None
        return address if address.kind in SIGNED_KINDS else None

    def outgoing(self, topic: str, payload: bytes) -> bytes:
        """What to publish; nothing, which clears a retained message, stays nothing."""
        if not payload or self._signer is None or self.address(topic) is None:
            return payload
        return self._signer.sign(topic, payload)

    def incoming(self, topic: str, address: Address, payload: bytes) -> bytes:
        """What was said; raises `DecodeError` where it is not to be believed."""
        return self._verifier.open(topic, address, payload) if payload else payload


def _signed(topic: str, stamp: int, body: bytes) -> bytes:
    return b"".join((LABEL, topic.encode(), b"\x00", stamp.to_bytes(8, "big"), body))


def _own_key(folder: Path) -> tuple[Ed25519PrivateKey, bytes]:
    need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    try:
        key = load_pem_private_key((folder / SIGNING_KEY).read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise Problem(f"{folder / SIGNING_KEY} cannot be used ({error}): enroll this node again") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Problem(f"{folder / SIGNING_KEY} is no ed25519 key: enroll this node again")
    return key, _certificate(folder / SIGNING_CERTIFICATE).public_bytes(Encoding.DER)


def _certificate(path: Path) -> x509.Certificate:
    need_cryptography()
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Problem(f"{path} cannot be used ({error}): enroll this node again") from None


def _read_certificate(
    der: bytes, authority: x509.Certificate, site: str
) -> tuple[Ed25519PublicKey, str, str, float, float]:
    """Key, node, role and validity (unix s) of another node's signing certificate; raises `DecodeError`."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(authority)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = {
            oid: str(certificate.subject.get_attributes_for_oid(oid)[0].value)
            for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME)
        }
        key = certificate.public_key()
    except (
        *(ValueError, TypeError, IndexError, InvalidSignature, UnsupportedAlgorithm),
        *(x509.ExtensionNotFound, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
    ):
        raise DecodeError("its certificate was not given by this site's authority") from None
    if names[NameOID.ORGANIZATION_NAME] != site:
        raise DecodeError(f"its certificate is of site {names[NameOID.ORGANIZATION_NAME]!r}, this is {site!r}")
    if ExtendedKeyUsageOID.CODE_SIGNING not in usage or not isinstance(key, Ed25519PublicKey):
        raise DecodeError("its certificate is not for signing")
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return key, names[NameOID.COMMON_NAME], names[NameOID.ORGANIZATIONAL_UNIT_NAME], begins, ends


def _verify(key: Ed25519PublicKey, signature: bytes, data: bytes) -> None:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data)
    except InvalidSignature:
        raise DecodeError("its signature is wrong: it was changed on its way, or moved from another topic") from None


def need_cryptography() -> None:
    """Raise `Problem` where the package is missing."""
    from importlib.util import find_spec

    if find_spec("cryptography") is None:
        raise Problem("an enrolled node needs cryptography: pip install 'megace2-iot[secure]'")
