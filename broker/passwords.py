"""A password file as mosquitto_passwd writes it: who is in it, and whether a password is theirs."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.settings import BrokerError

MAX_ITERATIONS = 10_000_000  # some seconds of one core
DECOY_ITERATIONS = 101  # mosquitto_passwd's own number


@dataclass(frozen=True, slots=True)
class Hashed:
    """PBKDF2 with SHA-512, or for 0 iterations one SHA-512 of password and salt, as Mosquitto 1.6 wrote it."""

    iterations: int
    salt: bytes
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> Hashed:
        """`$7$iterations$salt$hash` or `$6$salt$hash`, base64. Raises ValueError."""
        _, kind, *rest = text.split("$")
        if kind == "6":
            rest.insert(0, "0")
        elif kind != "7":
            raise ValueError(f"hashes of kind ${kind}$ are not known")
        iterations, salt, digest = rest
        if not (kind == "6" or 1 <= int(iterations) <= MAX_ITERATIONS):
            raise ValueError(f"{iterations} iterations")
        return cls(int(iterations), base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True))

    def fits(self, password: bytes) -> bool:
        """Takes as long as its iterations: not to be called on an event loop."""
        if self.iterations:
            found = hashlib.pbkdf2_hmac("sha512", password, self.salt, self.iterations)
        else:
            found = hashlib.sha512(password + self.salt).digest()
        return hmac.compare_digest(found, self.digest)


class Users:
    """Everybody who may log in."""

    def __init__(self, hashes: Mapping[str, Hashed]) -> None:
        self._hashes = dict(hashes)
        iterations = max((one.iterations for one in self._hashes.values()), default=DECOY_ITERATIONS)
        self._nobody = Hashed(iterations, b"nobody", b"")  # an unknown name must take as long as a known one

    @classmethod
    def read(cls, path: Path) -> Users:
        """Raises BrokerError, which names the line."""
        hashes = {}
        for number, line in enumerate(_lines(path), 1):
            name, colon, text = line.partition(":")
            if not line.strip() or line.startswith("#"):
                continue
            try:
                if not colon or not name:
                    raise ValueError("it is not of the form name:hash")
                hashes[name] = Hashed.parse(text.strip())
            except (ValueError, binascii.Error) as error:
                raise BrokerError(f"{path}, line {number}: {error}; mosquitto_passwd writes this file") from error
        return cls(hashes)

    def __contains__(self, username: str | None) -> bool:
        return username in self._hashes

    def accept(self, username: str, password: bytes) -> bool:
        """Whether the password is the user's. Slow by intent: not to be called on an event loop."""
        return self._hashes.get(username, self._nobody).fits(password)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BrokerError(f"the password file {path} cannot be read: {error}") from error
