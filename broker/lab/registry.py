"""The nodes of a site and the invitations that are open: one JSON file, changed under a lock, written by rename."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from broker.settings import BrokerError
from megace2_iot.identity import NodeId, Role, write_private

FILE, LOCK = "nodes.json", ".lock"
INVITATION = 900.0  # s for which a join string is good
MAX_INVITATIONS = 1000


class Enrolled(BaseModel):
    """One node, as it was admitted. Times are unix s, serials those of its certificates."""

    model_config = ConfigDict(extra="forbid")
    id: NodeId
    role: Role
    edge: NodeId | None = None
    read: tuple[str, ...] = ()  # topic filters besides those of its role
    write: tuple[str, ...] = ()
    serials: list[int] = []
    password: str = ""  # its hash, as in Mosquitto's password file
    enrolled_at: float = 0.0
    expires_at: float = 0.0
    revoked_at: float | None = None


class Invitation(BaseModel):
    """A join string that was given out: the hash of its token, and what the node will be. Good once."""

    model_config = ConfigDict(extra="forbid")
    token: str
    node: Enrolled
    days: int
    ends_at: float


class Registry(BaseModel):
    """All of it."""

    model_config = ConfigDict(extra="forbid")
    nodes: dict[NodeId, Enrolled] = {}
    revoked: list[int] = []  # serials
    invitations: list[Invitation] = []

    def invite(self, node: Enrolled, days: int) -> str:
        """Open an invitation; returns its token, which is kept nowhere. An older one for the same id ends."""
        now = time.time()
        kept = [other for other in self.invitations if other.ends_at > now and other.node.id != node.id]
        if len(kept) >= MAX_INVITATIONS:
            raise BrokerError(f"{MAX_INVITATIONS} invitations are open: wait until some have ended")
        token = secrets.token_urlsafe(18)
        kept.append(Invitation(token=_hash(token), node=node, days=days, ends_at=now + INVITATION))
        self.invitations = kept
        return token

    def redeem(self, node: str, token: str) -> Invitation | None:
        """The open invitation of `node` with this token, which ends with that; None where there is none."""
        now, hashed = time.time(), _hash(token)
        for invitation in self.invitations:
            same = hmac.compare_digest(invitation.token, hashed)
            if same and invitation.node.id == node and invitation.ends_at > now:
                self.invitations.remove(invitation)
                return invitation
        return None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def read_registry(folder: Path) -> Registry:
    """Raises `BrokerError` where the file is damaged."""
    path = folder / FILE
    try:
        return Registry.model_validate_json(path.read_bytes()) if path.exists() else Registry()
    except (OSError, ValidationError) as error:
        raise BrokerError(f"{path} cannot be read ({error}): bring it back from a backup") from None


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[Registry]:
    """Change the registry: several commands and the enrolment service may want to at once. Written at the end."""
    with open(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        registry = read_registry(folder)
        yield registry
        write_private(folder / FILE, registry.model_dump_json(indent=1).encode() + b"\n")
