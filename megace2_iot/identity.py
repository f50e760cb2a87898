"""Who a node is in an enrolled site: one folder with its name, its keys, and the certificate authority it trusts.

    node.json                          id, role, site, base topic, the broker's address
    ca.crt                             the site's certificate authority, pinned
    node.crt, node.key                 for TLS; or `password`, in a site of passwords
    signing.crt, signing.key           for what this node signs (signing.py)

`megace2 enroll` and `megace2 join` write it, and `[broker] identity` names it. Nothing here needs more than the
standard library: a device without `cryptography` can still speak TLS.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from megace2_iot.problems import Problem
from megace2_iot.topics import CLOUD, Topics

Role = Literal["device", "edge", "cloud", "operator"]
NODE, CA, CERTIFICATE, KEY = "node.json", "ca.crt", "node.crt", "node.key"
SIGNING_CERTIFICATE, SIGNING_KEY, PASSWORD = "signing.crt", "signing.key", "password"
SECRET = (KEY, SIGNING_KEY, PASSWORD)
NodeId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


class Identity(BaseModel):
    """What `node.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: NodeId
    role: Role
    site: NodeId
    base: str
    url: str  # of the site's broker
    edge: NodeId | None = None  # of a device that may speak to one edge only

    def topics(self) -> Topics:
        return Topics(self.base, self.site)


def identity_folder(path: Path, node: str) -> Path:
    """`path` itself, or `path/<node>` where it holds several: a replay runs many devices in one process."""
    return path if (path / NODE).exists() else path / node


def load_identity(folder: Path) -> Identity:
    """Read a node's identity. Raises `Problem` where it is missing, damaged, or its keys are open to others."""
    try:
        identity = Identity.model_validate_json((folder / NODE).read_bytes())
        for name in SECRET:
            path = folder / name
            if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise Problem(f"{path} can be read by others: chmod 600 {path}")
    except OSError as error:
        raise Problem(
            f"{folder} holds no identity ({error.strerror}): get one with 'megace2 enroll' beside the broker or "
            "'megace2 join' here"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Problem(f"{folder / NODE}: {'.'.join(map(str, first['loc']))}: {first['msg']}; enroll it again") from None
    return identity


def check_node(identity: Identity, folder: Path, node: str) -> None:
    """Raise `Problem` where a node would speak under a name that is not its identity's; an operator's is free."""
    if identity.role != "operator" and node != identity.id:
        raise Problem(
            f"{folder} is the identity of {identity.id!r}, not of {node!r}: "
            + ("the cloud needs its own" if node == CLOUD else f"set the id to {identity.id!r}, or enroll {node!r}")
        )


def tls_context(folder: Path) -> ssl.SSLContext:
    """A context that trusts the site's authority and nobody else. Raises `Problem` for keys that cannot be read."""
    try:
        context = ssl.create_default_context(cafile=folder / CA)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if (folder / CERTIFICATE).exists():
            context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    except (OSError, ssl.SSLError) as error:
        raise Problem(f"{folder}: {error.strerror or error}; enroll this node again") from None
    return context


def password_of(folder: Path) -> str | None:
    """Its password, in a site of passwords."""
    path = folder / PASSWORD
    return path.read_text().strip() if path.exists() else None


def write_identity(folder: Path, identity: Identity, files: Mapping[str, bytes]) -> None:
    """Write a whole identity or nothing; secrets are readable by their owner only. Raises `Problem`."""
    part = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True, mode=0o700)
        for name, content in {NODE: identity.model_dump_json(indent=1).encode() + b"\n", **files}.items():
            write_private(part / name, content) if name in SECRET else (part / name).write_bytes(content)
        if folder.exists():
            if not (folder / NODE).exists() and any(folder.iterdir()):
                raise Problem(f"{folder} holds other things: choose another folder with --out")
            shutil.rmtree(folder)
        part.rename(folder)
    except OSError as error:
        raise Problem(f"{folder} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, by rename, so that nobody ever finds half of it."""
    part = path.with_name(f".{path.name}.part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
