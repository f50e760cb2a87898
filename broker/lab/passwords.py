"""Password hashes as Mosquitto keeps them: PBKDF2 with SHA-512, `$7$<rounds>$<salt>$<hash>` in base64."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping

ROUNDS = 101  # Mosquitto's own number: passwords here are random, 192 bits long, and cannot be guessed at any speed
SALT = 12  # bytes, as Mosquitto 2.0 takes them


def hashed(password: str) -> str:
    """The hash of a password, under a new salt."""
    salt = os.urandom(SALT)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS)
    return f"$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def password_file(users: Mapping[str, str]) -> str:
    """The text of a password file: the hash of each user who has one."""
    return "".join(f"{name}:{stored}\n" for name, stored in users.items() if stored)
