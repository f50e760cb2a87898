"""Where the broker is, how to speak to it, and how a node tells that it is there."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from megace2_iot.identity import Identity, check_node, identity_folder, load_identity, password_of, tls_context
from megace2_iot.problems import Problem


class BrokerSettings(BaseModel):
    """Where the broker is and how to speak to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    url: str = "mqtt://127.0.0.1:1883"  # or several of one cluster's, with commas between
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    identity: Path | None = None  # the folder that `megace2 enroll` or `megace2 join` wrote, or one of such folders
    insecure: bool = False  # allow mqtt:// to another machine: whoever is on the network reads and writes all of it
    username: str | None = None
    password: str | None = Field(None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive: int = Field(15, ge=1, le=3600)  # s; a dead peer is noticed after one and a half
    timeout: float = Field(5.0, gt=0)  # s for a connect
    session_expiry: int = Field(3600, ge=0)  # s the broker keeps an absent node's subscriptions (MQTT 5)
    repeat_retained: Literal["auto", "yes", "no"] = "auto"  # for a broker that does not give it to all who subscribe
    repeat_every: float = Field(10.0, ge=1.0)  # s, where it is repeated

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        addresses = [address.strip() for address in url.split(",")]
        for address in addresses:
            parts = urlsplit(address)
            try:
                port = parts.port  # raises for one that is no number, or too large
            except ValueError:
                port = 0
            if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or port == 0:
                raise ValueError(
                    f"{address!r} is no broker address: use mqtt://host:port, or mqtts://host:port for TLS; "
                    "several nodes of a cluster with commas between"
                )
        if len({urlsplit(address).scheme for address in addresses}) > 1:
            raise ValueError(f"{url!r}: all nodes of a cluster by mqtts://, or all by mqtt://")
        return ",".join(addresses)

    @model_validator(mode="after")
    def _not_in_the_clear(self) -> Self:
        exposed = not all(is_loopback(urlsplit(address).hostname or "") for address in self.addresses)
        if exposed and not self.secure and not self.insecure:
            raise ValueError(
                f"{self.url} would send everything in the clear, readable and writable by whoever is on the network: "
                "use mqtts:// ('megace2 broker init' sets it up), or add --insecure (insecure = true)"
            )
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of the nodes of the cluster; one where there is one broker."""
        return tuple(self.url.split(","))

    @property
    def clustered(self) -> bool:
        return len(self.addresses) > 1

    def at(self, number: int) -> BrokerSettings:
        """The settings for one of the addresses, counted round and round."""
        addresses = self.addresses
        return self.model_copy(update={"url": addresses[number % len(addresses)]}) if self.clustered else self

    @property
    def host(self) -> str:
        return urlsplit(self.addresses[0]).hostname or "127.0.0.1"

    @property
    def secure(self) -> bool:
        return urlsplit(self.addresses[0]).scheme == "mqtts"

    @property
    def port(self) -> int:
        return urlsplit(self.addresses[0]).port or (8883 if self.secure else 1883)

    def tls(self) -> ssl.SSLContext | None:
        if not self.secure:
            return None
        if self.identity is not None:
            return tls_context(self.identity)
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise Problem(f"[broker] ca_file, cert_file or key_file cannot be used: {error}") from None
        return context

    def known_as(self, node: str) -> tuple[BrokerSettings, Identity | None]:
        """The settings for one node: with the address and the credentials of its identity, where it has one.

        Raises `Problem` where the identity is another's or cannot be used.
        """
        if self.identity is None:
            return self, None
        folder = identity_folder(self.identity, node)
        identity = load_identity(folder)
        check_node(identity, folder, node)
        given = self.model_dump(exclude_unset=True)
        named = {"identity": folder, "url": given.get("url", identity.url)}
        if (password := password_of(folder)) is not None:
            named |= {"username": identity.id, "password": password}
        return BrokerSettings.model_validate({**given, **named}), identity


def is_loopback(host: str) -> bool:
    """Whether what is sent there never leaves this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Presence(BaseModel):
    """How a node tells that it is there: its state topic, and the bytes for each state under a session number.

    `family` is a filter with a wildcard that its state topic matches and no other node's does: by it the node sees
    whether the broker gives retained messages for such filters. Empty: it does not look.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    topic: str
    payload: Callable[[Literal["online", "stopped", "offline"], int], bytes]
    family: str = ""
