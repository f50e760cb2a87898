"""Where the broker is, how to speak to it, and how a node tells that it is there."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator


class BrokerSettings(BaseModel):
    """Where the broker is and how to speak to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    url: str = "mqtt://127.0.0.1:1883"
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    username: str | None = None
    password: str | None = Field(None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive: int = Field(15, ge=1, le=3600)  # s; a dead peer is noticed after one and a half
    timeout: float = Field(5.0, gt=0)  # s for a connect
    session_expiry: int = Field(3600, ge=0)  # s the broker keeps an absent node's subscriptions (MQTT 5)

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        parts = urlsplit(url)
        try:
            port = parts.port  # raises for one that is no number, or too large
        except ValueError:
            port = 0
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or port == 0:
            raise ValueError(f"{url!r} is no broker address: use mqtt://host:port, or mqtts://host:port for TLS")
        return url

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "127.0.0.1"

    @property
    def secure(self) -> bool:
        return urlsplit(self.url).scheme == "mqtts"

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or (8883 if self.secure else 1883)

    def tls(self) -> ssl.SSLContext | None:
        if not self.secure:
            return None
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


class Presence(BaseModel):
    """How a node tells that it is there: its state topic, and the bytes for each state under a session number."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    topic: str
    payload: Callable[[Literal["online", "stopped", "offline"], int], bytes]
