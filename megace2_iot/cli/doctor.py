"""`megace2 doctor`: is all here that a tier needs, and what to do where it is not."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from megace2_iot.cli.options import Broker, Config, IdentityDir, Insecure, Json, common, merged, of_broker, passer_by
from megace2_iot.service import Settings

if TYPE_CHECKING:
    from megace2_iot.cli.checkup.check import Check, Role
    from megace2_iot.messages import Hardware

WIDTH = 80  # columns at most


class Tier(StrEnum):
    """Whom to check for."""

    device = "device"
    edge = "edge"
    cloud = "cloud"


def command(
    tier: Annotated[
        Tier | None,
        typer.Option("--for", help="Check for one tier; default: all that can run here.", show_default=False),
    ] = None,
    as_json: Json = False,
    broker: Broker = None,
    identity: IdentityDir = None,
    insecure: Insecure = None,
    config: Config = None,
) -> None:
    """Check packages, sensors, disk, clock and broker, and say what to do; exits with 1 where a need is unmet."""
    from megace2_iot.cli.checkup import identities, sensors, software, surroundings
    from megace2_iot.hardware import hardware

    settings = Settings(config, merged(of_broker(broker, identity, insecure)))
    topics, address = common(settings)
    roles: tuple[Role, ...] = (tier.value,) if tier else software.installed_roles()
    profile = hardware()
    sources = surroundings.place(settings, "device").sources if "device" in roles else ()
    senses = "device" in roles and bool(sources or profile.cameras or profile.microphones)
    checks = software.check_software(roles, senses=senses, accelerator=profile.accelerator)
    checks += software.check_decoders(needed=senses)
    checks += [*sensors.check_sensors(), *sensors.check_sources(sources)] if "device" in roles else []
    checks += surroundings.check_machine(profile, roles)
    checks += [surroundings.check_clock(), *surroundings.check_disk(settings, roles)]
    if address.identity is not None:
        checks += identities.check_identities(address)
    else:
        checks += asyncio.run(surroundings.look_at_broker(address, passer_by("doctor"), f"{topics.root}/probe"))
    (_print_json if as_json else _print)(roles, profile, checks)
    sys.exit(1 if any(check.state == "missing" for check in checks) else 0)


def _print_json(roles: Sequence[Role], profile: Hardware, checks: Sequence[Check]) -> None:
    listed = [
        {"area": c.area, "name": c.name, "state": c.state, "found": c.found, "advice": c.advice or None} for c in checks
    ]
    well = all(check.state != "missing" for check in checks)
    print(json.dumps({"for": list(roles), "well": well, "hardware": profile.model_dump(), "checks": listed}))


def _print(roles: Sequence[Role], profile: Hardware, checks: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from megace2_iot.cli.checkup.check import MARKS

    console = Console(highlight=False)
    table = Table(title=f"this machine, for: {', '.join(roles)}", width=min(WIDTH, console.width))
    for column in ("", "area", "what", "found"):
        table.add_column(column, overflow="fold")
    for check in checks:
        table.add_row(MARKS[check.state], check.area, escape(check.name), escape(check.found))
    console.print(table)
    for state, title in (("missing", "Needed:"), ("advised", "Advised:")):
        told = [check for check in checks if check.state == state]
        if told:
            console.print(title)
        for check in told:
            console.print(f"  {check.name}: {check.advice}", markup=False, soft_wrap=True)
    if all(check.state in ("ok", "absent") for check in checks):
        console.print("All is well.")
