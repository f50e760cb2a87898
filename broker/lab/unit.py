"""A systemd unit that runs a site's broker: of the system for root, of the user otherwise."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from broker.lab.site import Site
from broker.settings import BrokerError

SYSTEM = Path("/etc/systemd/system")
USER = Path("~/.config/systemd/user")


def unit_name(site: Site) -> str:
    return f"megace2-broker-{site.config.name}.service"


def unit_text(site: Site, command: Path, *, system: bool, embedded: bool = False) -> str:
    """The unit: `command` is the megace2 to run. It restarts, and may write the site's folder only."""
    folder = str(site.folder)
    owner = pwd.getpwuid(site.folder.stat().st_uid).pw_name
    lines = [
        f"# The broker of site {site.config.name}, written by megace2 broker up --systemd.",
        "[Unit]",
        f"Description=Mega-CE2 broker of site {site.config.name}",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={shlex.quote(str(command))} broker up --dir {shlex.quote(folder)}" + " --embedded" * embedded,
        *([f"User={owner}"] if system else []),
        "WatchdogSec=30",
        "Restart=on-failure",
        "RestartSec=2",
        "TimeoutStopSec=20",
        "KillMode=mixed",
        "UMask=0077",
        "NoNewPrivileges=yes",
        "LimitNOFILE=65536",
    ]
    if system:
        lines += [
            "CapabilityBoundingSet=",
            "AmbientCapabilities=",
            "ProtectSystem=strict",
            f"ReadWritePaths={folder}",
            "PrivateTmp=yes",
            "PrivateDevices=yes",
            "ProtectClock=yes",
            "ProtectControlGroups=yes",
            "ProtectKernelLogs=yes",
            "ProtectKernelModules=yes",
            "ProtectKernelTunables=yes",
            "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
            "RestrictNamespaces=yes",
            "RestrictRealtime=yes",
            "RestrictSUIDSGID=yes",
            "LockPersonality=yes",
            "SystemCallArchitectures=native",
            "SystemCallFilter=@system-service",
            "SystemCallErrorNumber=EPERM",
        ]
    return "\n".join([*lines, "", "[Install]", f"WantedBy={'multi-user' if system else 'default'}.target", ""])


def install_unit(site: Site, folder: Path | None = None, *, embedded: bool = False) -> Path:
    """Write the unit and start it, now and at every boot. Raises `BrokerError` where there is no systemd."""
    system = os.geteuid() == 0
    where = folder or (SYSTEM if system else USER.expanduser())
    path = where / unit_name(site)
    command = Path(shutil.which("megace2") or Path(sys.executable).with_name("megace2"))
    try:
        where.mkdir(parents=True, exist_ok=True)
        path.write_text(unit_text(site, command, system=system, embedded=embedded))
    except OSError as error:
        raise BrokerError(f"{path} cannot be written: {error.strerror}") from None
    if shutil.which("systemctl") is None:
        raise BrokerError(f"{path} is written, but there is no systemd here to run it: use 'megace2 broker up'")
    as_user = [] if system else ["--user"]
    for step in (["daemon-reload"], ["enable", "--now", path.name]):
        done = subprocess.run(["systemctl", *as_user, *step], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BrokerError(f"{path} is written, but systemctl {' '.join(step)} said: {done.stderr.strip()}")
    return path
