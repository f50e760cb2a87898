"""The command tree."""

from __future__ import annotations

import typer

from megace2_iot import __version__
from megace2_iot.cli import (
    broker,
    cloud,
    data,
    demo,
    device,
    doctor,
    edge,
    enroll,
    evaluate,
    experiment,
    export,
    import_,
    join,
    label,
    outbox,
    record,
    replay,
    revoke,
    rollback,
    sense,
    status,
    train,
    updates,
)

app = typer.Typer(
    name="megace2",
    help="End-edge-cloud multimodal inference and learning over one MQTT broker.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    demo,
    cloud,
    edge,
    device,
    replay,
    sense,
    record,
    label,
    status,
    rollback,
    doctor,
    enroll,
    join,
    revoke,
    train,
    evaluate,
    experiment,
):
    app.command(module.__name__.rsplit(".", 1)[-1])(module.command)
app.add_typer(broker.app, name="broker")
app.add_typer(outbox.app, name="outbox")
app.add_typer(updates.app, name="updates")
app.add_typer(data.app, name="data")
app.add_typer(import_.app, name="import")
app.add_typer(export.app, name="export")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """End-edge-cloud multimodal inference and learning over one MQTT broker."""
