"""`megace2 enroll`: admit nodes to a site, beside its broker."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megace2_iot.cli.site import SiteDir, day, open_site, tell_broker
from megace2_iot.problems import Problem

if TYPE_CHECKING:
    from broker.lab.registry import Enrolled
    from broker.lab.site import Site

LONGEST = 3650  # days: the authority itself ends then


class Role(StrEnum):
    """What a node is; the cloud's id is `cloud`."""

    device = "device"
    edge = "edge"
    cloud = "cloud"
    operator = "operator"


def command(
    ids: Annotated[list[str], typer.Argument(help="Node ids, as cam-01.", metavar="ID...")],
    role: Annotated[
        Role | None, typer.Option(help="Default: device; of the id 'cloud', cloud.", show_default=False)
    ] = None,
    edge: Annotated[str | None, typer.Option(help="The only edge that a device may speak to.")] = None,
    join: Annotated[bool, typer.Option("--join", help="Print a join string, good once, instead of keys.")] = False,
    out: Annotated[Path, typer.Option(help="Where the folders with their keys go.")] = Path("identities"),
    days: Annotated[int, typer.Option(min=1, max=LONGEST, help="For which it is valid.")] = 730,
    renew: Annotated[bool, typer.Option("--renew", help="New keys for a node that is enrolled.")] = False,
    read: Annotated[
        list[str] | None, typer.Option(help="Topic filter that it may read besides those of its role; repeatable.")
    ] = None,
    write: Annotated[list[str] | None, typer.Option(help="The same, for publishing.")] = None,
    folder: SiteDir = None,
) -> None:
    """Admit nodes: write the folder of keys that each is started with, or print a join string for each."""
    site = open_site(folder)
    nodes = [_node(name, role, edge, read or [], write or []) for name in ids]
    if join:
        _invite(site, nodes, days, renew=renew)
        return
    for node in nodes:
        where = site.enroll(node, out, days=days, renew=renew)
        until = day(time.time() + days * 86_400.0)
        print(f"{node.id} is enrolled as {node.role} until {until}: {where}")
    print(tell_broker(site))
    print("copy each folder to its machine, readable by its owner only, and start the node with it:")
    for node in nodes:
        print(f"  {start_line(node.role, out / node.id)}")


def _node(name: str, role: Role | None, edge: str | None, read: list[str], write: list[str]) -> Enrolled:
    from pydantic import ValidationError

    from broker.lab.registry import Enrolled

    chosen = role or (Role.cloud if name == "cloud" else Role.device)
    if edge is not None and chosen is not Role.device:
        raise Problem("--edge is for devices: an edge and the cloud hear what is addressed to them")
    try:
        return Enrolled(id=name, role=chosen.value, edge=edge, read=tuple(read), write=tuple(write))
    except ValidationError:
        raise Problem(
            f"{name!r} or {edge!r} is no node id: use 1-32 of a-z, 0-9, '-' and '_', beginning with a letter or digit"
        ) from None


def _invite(site: Site, nodes: list[Enrolled], days: int, *, renew: bool) -> None:
    from broker.lab.enrolment import join_string

    for node in nodes:
        token = site.invite(node, days=days, renew=renew)
        print(f"type on {node.id}, within 15 minutes, while 'megace2 broker up' runs:")
        print(f"  megace2 join '{join_string(site, node.id, token)}'")


def start_line(role: str, folder: Path) -> str:
    """How a node of this role is started."""
    return f"megace2 {'status' if role == 'operator' else role} --identity {folder}"
