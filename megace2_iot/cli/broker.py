"""`megace2 broker`: the embedded MQTT broker; below it the commands of a lab's broker (`lab.py`)."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megace2_iot.cli import lab
from megace2_iot.cli.options import Config
from megace2_iot.problems import Problem
from megace2_iot.service import Settings, run, tell_ready

if TYPE_CHECKING:
    from broker.settings import EmbeddedSettings, Listener, TlsSettings

app = typer.Typer(
    help="Run the embedded broker; or init, up and list: a lab's broker, where every node proves who it is.",
    invoke_without_command=True,
    no_args_is_help=False,
)
app.command()(lab.init)
app.command()(lab.up)
app.command("list")(lab.list_nodes)


@app.callback()
def command(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of MQTT; 0 takes a free one and prints it.")] = 1883,
    tls_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Of MQTT over TLS, too.")] = None,
    websocket_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Of MQTT over WebSocket, too.")] = None,
    wss_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Of the same over TLS, too.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="The broker's certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="Who signs clients' certificates, which are asked for.")] = None,
    tls_crl: Annotated[Path | None, typer.Option(help="Which of them are revoked.")] = None,
    users: Annotated[Path | None, typer.Option(help="Password file, as mosquitto_passwd writes it.")] = None,
    acl: Annotated[Path | None, typer.Option(help="Access list, as Mosquitto's acl_file.")] = None,
    persistence: Annotated[
        Path | None, typer.Option(help="SQLite file for sessions and retained messages; default: memory only.")
    ] = None,
    fsync: Annotated[bool, typer.Option("--fsync", help="Survive the loss of power, too.")] = False,
    max_packet: Annotated[int, typer.Option(min=1024, help="Bytes of the largest packet.")] = 1 << 20,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine, for anybody.")] = False,
    config: Config = None,
) -> None:
    """Run the embedded broker (MQTT 3.1.1 and 5) until Ctrl-C; or, for a lab of several machines: init, up, list."""
    if context.invoked_subcommand is not None:
        return
    from broker.settings import AccessFiles, EmbeddedSettings, Listener
    from megace2_iot.bus.settings import is_loopback

    Settings(config)  # a mistake in the file is told here too
    if not insecure and not is_loopback(host):
        raise Problem(
            f"on {host} anybody could read and write everything: 'megace2 broker init' sets up a broker with accounts, "
            "--insecure opens this one"
        )
    tls = _tls(tls_cert, tls_key, tls_ca, tls_crl)
    if tls is None and (tls_port is not None or wss_port is not None):
        raise Problem("--tls-port and --wss-port need --tls-cert and --tls-key")
    more: list[Listener] = []
    for number, secure, websocket in ((tls_port, tls, False), (websocket_port, None, True), (wss_port, tls, True)):
        if number is not None:
            more.append(Listener(host, number, secure, websocket))
    settings = EmbeddedSettings(
        host=host,
        port=port,
        max_packet_size=max_packet,
        listeners=tuple(more),
        access_files=AccessFiles(users, acl, anonymous=users is None) if users or acl else None,
        persistence=persistence,
        persistence_fsync=fsync,
    )
    sys.exit(run(lambda: _serve(settings), "broker"))


def _tls(certificate: Path | None, key: Path | None, ca: Path | None, crl: Path | None) -> TlsSettings | None:
    from broker.settings import TlsSettings

    if certificate is None or key is None:
        if certificate or key or ca or crl:
            raise Problem("TLS takes both --tls-cert and --tls-key")
        return None
    return TlsSettings(certificate, key, ca, require_certificate=ca is not None, crl=crl)


async def _serve(settings: EmbeddedSettings) -> None:
    """Run it; SIGHUP has it read certificates, users and access list again."""
    from broker.server import embedded_broker

    async with embedded_broker(settings) as broker:
        again = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, again.set)
        for url in broker.urls:
            print(url, flush=True)
        tell_ready()
        while True:
            await again.wait()
            again.clear()
            await broker.reload()
