"""A site: its broker's configuration, its authority and its nodes, in one folder on the broker's machine.

site.json        name, base topic, host names, ports, certificates or passwords
pki/             the authority (ca.key stays here), the broker's certificate, the list of the revoked
nodes.json       who was admitted, who was revoked, which invitations are open
acl, passwords   for the broker, made from nodes.json
mosquitto.conf   made from site.json
data/            what the broker keeps
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker.lab.access_list import KEEPER, access_list, check_role
from broker.lab.certificates import CERTIFICATE, Authority, new_signing_key, new_tls_key, public_part
from broker.lab.mosquitto_conf import mosquitto_conf
from broker.lab.passwords import hashed, password_file
from broker.lab.registry import Enrolled, Registry, changing, read_registry
from broker.settings import BrokerError
from megace2_iot.identity import (
    CA,
    KEY,
    PASSWORD,
    SIGNING_CERTIFICATE,
    SIGNING_KEY,
    Identity,
    NodeId,
    write_identity,
    write_private,
)
from megace2_iot.identity import CERTIFICATE as NODE_CERTIFICATE
from megace2_iot.topics import Topics

SITE, PKI, ACL, PASSWORDS, CONF, DATA = "site.json", "pki", "acl", "passwords", "mosquitto.conf", "data"
KEEPER_PASSWORD = "keeper"  # of the name under which the site itself speaks, in a site of passwords
BROKER_KEY, BROKER_CERTIFICATE = "broker.key", "broker.crt"
BROKER_DAYS = 3650
NODE_DAYS = 730


class SiteConfig(BaseModel):
    """What `site.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: NodeId
    base: str = "megace2/v1"
    hosts: tuple[str, ...] = Field(min_length=1)  # names and addresses of the broker; nodes call the first
    bind: str = "0.0.0.0"
    port: int = Field(8883, ge=1, le=65535)
    enrolment_port: int = Field(8884, ge=1, le=65535)
    websocket_port: int = Field(0, ge=0, le=65535)  # 0: none
    auth: Literal["certificates", "passwords"] = "certificates"
    max_packet_size: int = Field(1 << 20, ge=64 << 10)  # bytes

    @property
    def url(self) -> str:
        host = self.hosts[0]
        return f"mqtts://[{host}]:{self.port}" if ":" in host else f"mqtts://{host}:{self.port}"

    def topics(self) -> Topics:
        return Topics(self.base, self.name)


class Site:
    """An open site. What it changes is whole on disk before the broker is told."""

    def __init__(self, folder: Path) -> None:
        """Raises `BrokerError` where there is none, or it is damaged."""
        self.folder = folder.absolute()
        try:
            self.config = SiteConfig.model_validate_json((self.folder / SITE).read_bytes())
        except OSError as error:
            raise BrokerError(
                f"{folder} holds no site ({error.strerror}): make one with 'megace2 broker init --dir {folder}'"
            ) from None
        except ValidationError as error:
            raise BrokerError(f"{self.folder / SITE}: {error.errors(include_url=False)[0]['msg']}") from None

    @classmethod
    def create(cls, folder: Path, config: SiteConfig) -> Site:
        """Make a site with nobody in it. Raises `BrokerError` where there is one already."""
        if (folder / SITE).exists():
            raise BrokerError(f"{folder} holds a site already: remove it first, or choose another folder with --dir")
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)  # the authority's key lies in it
            (folder / DATA).mkdir(exist_ok=True)
            Authority.create(folder / PKI, config.name)
            write_private(folder / KEEPER_PASSWORD, secrets.token_urlsafe(24).encode())
            write_private(folder / SITE, config.model_dump_json(indent=1).encode() + b"\n")
        except OSError as error:
            raise BrokerError(f"{folder} cannot be written: {error.strerror}") from None
        site = cls(folder)
        site.certify_broker()
        with changing(site.folder) as registry:
            site.write(registry)
        return site

    @property
    def authority(self) -> Authority:
        return Authority(self.folder / PKI)

    def certify_broker(self) -> None:
        """A new key and certificate for the broker, for all its host names."""
        authority, key, config = self.authority, new_tls_key(), self.config
        pem, _ = authority.certify(
            public_part(key), "broker", "broker", config.name, "server", days=BROKER_DAYS, hosts=config.hosts
        )
        write_private(self.folder / PKI / BROKER_KEY, key)
        (self.folder / PKI / BROKER_CERTIFICATE).write_bytes(pem)

    def nodes(self) -> Mapping[str, Enrolled]:
        """Everybody who was ever admitted, the revoked too."""
        return read_registry(self.folder).nodes

    # -- admission --------------------------------------------------------------------
    def enroll(self, node: Enrolled, out: Path, *, days: int = NODE_DAYS, renew: bool = False) -> Path:
        """Admit a node and write its identity to `out`/<id>; its keys are made here and kept nowhere else."""
        tls, signing = new_tls_key(), new_signing_key()
        public = {"tls": public_part(tls), "signing": public_part(signing)}
        with changing(self.folder) as registry:
            self._check_new(registry, node, renew)
            identity, files = self._admit(registry, node, public, days)
            own = {SIGNING_KEY: signing} | ({KEY: tls} if NODE_CERTIFICATE in files else {})
            folder = out / node.id
            write_identity(folder, identity, {**files, **own})
            self.write(registry)
        return folder

    def invite(self, node: Enrolled, *, days: int = NODE_DAYS, renew: bool = False) -> str:
        """Open an invitation, for a node that makes its own keys; returns its token."""
        with changing(self.folder) as registry:
            self._check_new(registry, node, renew)
            return registry.invite(node, days)

    def admit(self, name: str, token: str, public: Mapping[str, bytes]) -> tuple[Identity, dict[str, bytes]]:
        """Admit a node by its invitation, under its own keys. Raises `BrokerError` where there is none."""
        with changing(self.folder) as registry:
            invitation = registry.redeem(name, token)
            if invitation is None:
                raise BrokerError(f"no open invitation of {name!r} has this token: it is good once, for 15 minutes")
            admitted = self._admit(registry, invitation.node, public, invitation.days)
            self.write(registry)
        return admitted

    def _check_new(self, registry: Registry, node: Enrolled, renew: bool) -> None:
        with contextlib.suppress(KeyError):
            known = registry.nodes[node.id]
            if known.revoked_at is None and not renew:
                raise BrokerError(f"{node.id!r} is enrolled: --renew gives it new keys, 'megace2 revoke' shuts it out")
            if known.revoked_at is None and known.role != node.role:
                raise BrokerError(f"{node.id!r} is enrolled as {known.role}: revoke it first")
        try:
            check_role(node.role, node.id)
        except ValueError as error:
            raise BrokerError(str(error)) from None

    def _admit(
        self, registry: Registry, node: Enrolled, public: Mapping[str, bytes], days: int
    ) -> tuple[Identity, dict[str, bytes]]:
        config, authority = self.config, self.authority
        files = {CA: authority.pem}
        known = registry.nodes.get(node.id)
        serials = list(known.serials) if known else []
        signing, serial = authority.certify(public["signing"], node.id, node.role, config.name, "signing", days=days)
        files[SIGNING_CERTIFICATE] = signing
        serials.append(serial)
        password = ""
        if config.auth == "passwords":
            secret = secrets.token_urlsafe(24)
            files[PASSWORD], password = f"{secret}\n".encode(), hashed(secret)
        else:
            pem, serial = authority.certify(public["tls"], node.id, node.role, config.name, "client", days=days)
            files[NODE_CERTIFICATE] = pem
            serials.append(serial)
        now = time.time()
        times = {"enrolled_at": now, "expires_at": now + days * 86_400.0}
        registry.nodes[node.id] = node.model_copy(update={"serials": serials, "password": password, **times})
        return self.identity(node), files

    def identity(self, node: Enrolled) -> Identity:
        config = self.config
        return Identity(id=node.id, role=node.role, site=config.name, base=config.base, url=config.url, edge=node.edge)

    def revoke(self, ids: Iterable[str]) -> list[str]:
        """Shut nodes out; returns those that were in. The broker must be told (`running.reload`)."""
        done = []
        with changing(self.folder) as registry:
            for name in ids:
                node = registry.nodes.get(name)
                if node is None:
                    raise BrokerError(f"{name!r} was never enrolled: known are {', '.join(sorted(registry.nodes))}")
                registry.invitations = [other for other in registry.invitations if other.node.id != name]
                if node.revoked_at is None:
                    node.revoked_at = time.time()
                    registry.revoked += node.serials
                    done.append(name)
            self.write(registry)
        return done

    # -- what the broker reads --------------------------------------------------------
    def write(self, registry: Registry) -> None:
        """Everything that the broker reads, from what is known."""
        self.authority.revoke(registry.revoked)
        write_private(self.folder / ACL, access_list(self.config.topics(), registry.nodes.values()).encode())
        users = {node.id: node.password for node in registry.nodes.values() if node.revoked_at is None}
        users[KEEPER] = hashed((self.folder / KEEPER_PASSWORD).read_text())
        write_private(self.folder / PASSWORDS, password_file(users).encode())
        write_private(self.folder / CONF, mosquitto_conf(self.folder, self.config).encode())


def authority_pem(folder: Path) -> bytes:
    """The certificate of a site's authority, in PEM: what nodes pin."""
    return (folder / PKI / CERTIFICATE).read_bytes()
