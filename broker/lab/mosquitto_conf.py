"""The configuration of a site's Mosquitto; understood by every version from 2.0.11."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.lab.site import SiteConfig

PID = "mosquitto.pid"


def mosquitto_conf(folder: Path, config: SiteConfig) -> str:
    """Its text. What is set differs from Mosquitto's defaults for the reasons in docs/lab.md."""
    pki = folder / "pki"
    lines = [
        "# Written by megace2 broker: a change here is lost at the next enrolment.",
        "per_listener_settings false",
        "allow_anonymous false",
        f"acl_file {folder}/acl",
        *([f"password_file {folder}/passwords"] if config.auth == "passwords" else []),
        f"max_packet_size {config.max_packet_size}",
        "max_inflight_messages 32",
        "max_queued_messages 2000",
        f"max_queued_bytes {256 << 20}",
        "max_keepalive 120",
        "persistent_client_expiration 14d",
        "set_tcp_nodelay true",
        "sys_interval 10",
        # Without autosave_on_changes a kill loses up to half an hour of acknowledged messages.
        "persistence true",
        f"persistence_location {folder}/data/",
        "autosave_on_changes true",
        "autosave_interval 200",
        f"pid_file {folder}/{PID}",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # else it becomes `mosquitto`, who may not read this folder
    lines += _listener(config.port, config.bind, pki, config.auth == "certificates")
    if config.websocket_port:
        lines += [*_listener(config.websocket_port, config.bind, pki, config.auth == "certificates")]
        lines.append("protocol websockets")
    return "\n".join(lines) + "\n"


def _listener(port: int, bind: str, pki: Path, certificates: bool) -> list[str]:
    lines = [
        f"listener {port} {bind}",
        f"certfile {pki}/broker.crt",
        f"keyfile {pki}/broker.key",
        "tls_version tlsv1.2",
        "use_username_as_clientid true",  # nobody takes over another's connection by its client id
    ]
    if certificates:
        lines += [
            f"cafile {pki}/ca.crt",
            f"crlfile {pki}/crl.pem",
            "require_certificate true",
            "use_identity_as_username true",
        ]
    return lines
