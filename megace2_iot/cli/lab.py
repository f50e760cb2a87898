"""`megace2 broker init`, `up` and `list`: a lab's broker, where every node proves who it is."""

from __future__ import annotations

import json
import socket
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from megace2_iot.cli.options import Json
from megace2_iot.cli.site import SITES, SiteDir, day, open_site
from megace2_iot.problems import Problem
from megace2_iot.service import run, tell_ready


class Auth(StrEnum):
    """How nodes prove who they are."""

    certificates = "certificates"
    passwords = "passwords"


def init(
    site: Annotated[str, typer.Option(help="The site's name.")] = "lab",
    folder: SiteDir = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address by which nodes reach it, the first is in their URL; repeatable."),
    ] = None,
    bind: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of MQTT over TLS.")] = 8883,
    enrolment_port: Annotated[int, typer.Option(min=1, max=65535, help="Where 'megace2 join' asks.")] = 8884,
    websocket_port: Annotated[int, typer.Option(min=0, max=65535, help="Of MQTT over WebSocket; 0: none.")] = 0,
    auth: Annotated[Auth, typer.Option(help="How nodes prove who they are.")] = Auth.certificates,
    base: Annotated[str, typer.Option(help="Base topic.")] = "megace2/v1",
) -> None:
    """Set a site up: authority, broker certificate, access list, configuration."""
    from megace2_iot.signing import need_cryptography

    need_cryptography()
    from pydantic import ValidationError

    from broker.lab.site import Site, SiteConfig

    try:
        config = SiteConfig(
            name=site,
            base=base,
            hosts=tuple(host or _own_names()),
            bind=bind,
            port=port,
            enrolment_port=enrolment_port,
            websocket_port=websocket_port,
            auth=auth.value,
        )
        config.topics()
    except (ValidationError, ValueError) as error:
        text = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise Problem(f"this is no site: {text}") from None
    made = Site.create(folder or SITES / site, config)
    where = _shown(made.folder)
    print(f"site {site} is set up in {where}: keep it to yourself, the key of its authority lies there")
    print(f"nodes will call {config.url}; names in its certificate: {', '.join(config.hosts)}")
    at = "" if folder is None else f" --dir {where}"
    print("next:")
    print(f"  megace2 broker up{at}            runs it")
    print(f"  megace2 enroll cam-01{at}        admits a device; --role edge, cloud or operator the others")


def up(
    folder: SiteDir = None,
    systemd: Annotated[
        bool, typer.Option("--systemd", help="Install a systemd unit that does this, and start it.")
    ] = False,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Run the embedded broker instead of Mosquitto, with the same rules.")
    ] = False,
) -> None:
    """Run a site's broker, and admit nodes with a join string, until Ctrl-C."""
    site = open_site(folder)
    if systemd:
        from broker.lab.unit import install_unit

        print(f"{install_unit(site, embedded=embedded)} is installed and runs")
        return

    async def serve() -> None:
        from broker.lab.enrolment import enrolment_service
        from broker.lab.running import site_embedded, site_mosquitto

        async with (site_embedded if embedded else site_mosquitto)(site) as ended, enrolment_service(site):
            print(f"{site.config.url}  (join at port {site.config.enrolment_port})", flush=True)
            tell_ready()
            await ended()

    sys.exit(run(serve, "broker"))


def list_nodes(folder: SiteDir = None, as_json: Json = False) -> None:
    """Show who is enrolled, until when, and who was revoked."""
    site = open_site(folder)
    nodes = sorted(site.nodes().values(), key=lambda node: (node.role, node.id))
    if as_json:
        shown = ("id", "role", "edge", "read", "write", "enrolled_at", "expires_at", "revoked_at")
        rows: list[dict[str, Any]] = [{name: getattr(node, name) for name in shown} for node in nodes]
        print(json.dumps({"site": site.config.name, "url": site.config.url, "nodes": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"site {site.config.name}: {site.config.url}")
    for column in ("id", "role", "edge", "enrolled", "valid until", "revoked"):
        table.add_column(column)
    for node in nodes:
        revoked = "" if node.revoked_at is None else day(node.revoked_at)
        table.add_row(node.id, node.role, node.edge or "", day(node.enrolled_at), day(node.expires_at), revoked)
    Console().print(table if nodes else f"nobody is enrolled in {site.config.name}: megace2 enroll cam-01")


def _own_names() -> list[str]:
    """The address of this machine on its network where it has one, its names, and the loopback."""
    names = [socket.gethostname(), f"{socket.gethostname().partition('.')[0]}.local", "localhost", "127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the way (RFC 5737, for documentation)
            names.insert(0, str(probe.getsockname()[0]))
        except OSError:
            pass
    return list(dict.fromkeys(names))


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
