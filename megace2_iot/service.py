"""Run one tier as a process: settings, log, signals, readiness, and an exit status that says what happened."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import logging
import os
import signal
import socket
import sys
import threading
import tomllib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from megace2_iot.bus import BrokerSettings, Bus, NotPublished
from megace2_iot.identity import NODE, Identity, Role, load_identity
from megace2_iot.problems import Problem
from megace2_iot.topics import Topics

SECTIONS = ("site", "broker", "device", "edge", "cloud", "replay", "sense")
DEFAULT_FILE = Path("megace2.toml")
READY_FD = "MEGACE2_READY_FD"  # a parent passes a pipe here; one line is written when the tier is up
CHILD = "MEGACE2_CHILD"  # set by a parent: end when standard input closes
_RESERVED = {READY_FD, CHILD, "MEGACE2_DATA", "MEGACE2_CONFORMANCE", "MEGACE2_CLUSTERS", "MEGACE2_LOG"}
M = TypeVar("M", bound=BaseModel)


class SiteSettings(BaseModel):
    """Which site this node belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    base: str = "megace2/v1"
    name: str = "lab"

    def topics(self) -> Topics:
        try:
            return Topics(self.base, self.name)
        except ValueError as error:
            raise Problem(f"[site]: {error}") from None


# -- settings: defaults < file < environment < command line ---------------------------
class Settings:
    """The sections of one TOML file under environment and command line, each validated by whom it belongs to."""

    def __init__(
        self,
        file: Path | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """`defaults` are a command's own, below the file; those of the models lie below them."""
        self._file = file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
        self._sections: dict[str, dict[str, Any]] = {name: dict(values) for name, values in (defaults or {}).items()}
        for section, content in (_read_file(self._file) if self._file else {}).items():
            _merge(self._sections.setdefault(section, {}), content)
        for section, key, value in _from_environment():
            _merge(self._sections.setdefault(section, {}), {key: value})
        for section, values in (overrides or {}).items():
            given = {key: value for key, value in values.items() if value is not None}
            _merge(self._sections.setdefault(section, {}), given)

    def section(self, name: str, model: type[M]) -> M:
        """One validated section; raises `Problem` naming the key, and the nearest known one."""
        try:
            return model.model_validate(self._sections.get(name, {}))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise Problem(_unknown(f"[{name}] {key}", str(first["loc"][-1]), list(model.model_fields))) from None
            text = first["msg"].removeprefix("Value error, ")
            raise Problem(f"[{name}] {key} = {first.get('input')!r}: {text}" if key else f"[{name}]: {text}") from None


def _merge(known: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Put `given` over `known`; of a table within a section only the named keys change."""
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(known.get(key), dict):
            _merge(known[key], value)
        else:
            known[key] = value


def _read_file(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(f"{path} is not valid TOML: {error}") from None
    for section, values in content.items():
        if section not in SECTIONS:
            raise Problem(_unknown(f"{path}: [{section}]", section, list(SECTIONS)))
        if not isinstance(values, dict):
            raise Problem(f"{path}: {section} must be a [{section}] section")
    return content


def _from_environment() -> Iterator[tuple[str, str, Any]]:
    for name, text in sorted(os.environ.items()):
        if not name.startswith("MEGACE2_") or name in _RESERVED:
            continue
        section, _, key = name.removeprefix("MEGACE2_").lower().partition("__")
        if section not in SECTIONS or not key:
            raise Problem(_unknown(f"environment: {name}", section, list(SECTIONS)) + " (MEGACE2_SECTION__KEY)")
        try:  # a password of digits stays a text, and numbers are read from texts by whom they belong to
            yield section, key, json.loads(text) if text[:1] in ("[", "{", '"') else text
        except (ValueError, RecursionError):
            yield section, key, text


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{what} is not known; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process belongs: the topics of its site, the broker, and who it is, where it was enrolled."""

    topics: Topics
    broker: BrokerSettings
    identity: Identity | None  # None, too, where each of several nodes has its own

    def named(self, chosen: M, role: Role) -> M:
        """A tier's settings with the id, and the edge, that its identity gives where nothing else does.

        Raises `Problem` where the identity is one for another role.
        """
        if self.identity is None:
            return chosen
        if self.identity.role != role:
            raise Problem(f"{self.broker.identity} is the identity of a node of role {self.identity.role}, not {role}")
        given = {"id": self.identity.id, "edge": self.identity.edge}
        known = type(chosen).model_fields.keys() - chosen.model_fields_set
        return chosen.model_copy(update={key: value for key, value in given.items() if value and key in known})


def find_place(settings: Settings) -> Place:
    """Read [site] and [broker], and the identity that they name. Raises `Problem` where they do not agree."""
    site, broker = settings.section("site", SiteSettings), settings.section("broker", BrokerSettings)
    if broker.identity is None:
        return Place(site.topics(), broker, None)
    folder = broker.identity
    several = [] if (folder / NODE).exists() else sorted(folder.glob(f"*/{NODE}"))
    if several:  # of one site
        folder = several[0].parent
    identity = load_identity(folder)
    for name, of_identity in (("base", identity.base), ("name", identity.site)):
        if name in site.model_fields_set and getattr(site, name) != of_identity:
            raise Problem(f"[site] {name} = {getattr(site, name)!r}, and {folder} is of {of_identity!r}: leave it out")
    if "url" not in broker.model_fields_set:
        broker = BrokerSettings.model_validate({**broker.model_dump(exclude_unset=True), "url": identity.url})
    return Place(identity.topics(), broker, None if several else identity)


# -- the process ----------------------------------------------------------------------
class JsonLines(logging.Formatter):
    """One JSON object a line, for journals."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def start_log(node: str, level: str = "") -> None:
    """Log to standard error: plain lines for a person, JSON where nobody watches a terminal and MEGACE2_LOG=json."""
    chosen = level or os.environ.get("MEGACE2_LOG", "info")
    handler = logging.StreamHandler(sys.stderr)
    if chosen == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s {node} %(levelname).1s %(name)s: %(message)s", "%H:%M:%S"))
    logging.getLogger("mqtt").setLevel(logging.CRITICAL)  # aiomqtt's: what it tells, the bus says better
    numeric = logging.getLevelName("INFO" if chosen == "json" else chosen.upper())
    logging.basicConfig(level=numeric if isinstance(numeric, int) else logging.INFO, handlers=[handler], force=True)


def tell_ready() -> None:
    """Tell the parent, if there is one, and systemd, if it waits, that this tier is up."""
    notify("READY=1")
    if fd := os.environ.pop(READY_FD, ""):
        with contextlib.suppress(OSError):
            os.write(int(fd), b"ready\n")
            os.close(int(fd))


def notify(state: str) -> None:
    """Tell systemd, where it asked for it (Type=notify), as sd_notify(3) does; without it do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.settimeout(1.0)  # s: a supervisor that hangs must not stop us
        sending.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)  # an abstract name
        sending.send(state.encode())


async def feed_watchdog() -> None:
    """Tell systemd twice in each WATCHDOG_USEC that the event loop turns; returns where none watches."""
    watched = os.environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    limit = os.environ.get("WATCHDOG_USEC", "") if watched else ""
    while limit.isdecimal() and int(limit):
        notify("WATCHDOG=1")
        await asyncio.sleep(int(limit) / 2e6)


def run(main: Callable[[], Awaitable[object]], node: str) -> int:
    """Run a tier until it ends or is told to stop; returns the process's exit status.

    0: done, or stopped by a signal. 1: a `Problem`, printed in one line. 2: a bug, with its traceback.
    """
    start_log(node)
    try:
        asyncio.run(_until_stopped(main))
    except BaseException as error:
        return _explain(error, node)
    return 0


async def _until_stopped(main: Callable[[], Awaitable[object]]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    if os.environ.get(CHILD):
        _end_with_parent(loop, task)
    watchdog = asyncio.create_task(feed_watchdog(), name="watchdog")
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
    finally:
        notify("STOPPING=1")
        watchdog.cancel()


def _end_with_parent(loop: asyncio.AbstractEventLoop, task: asyncio.Future[object]) -> None:
    def watch() -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop may have ended by itself
            loop.call_soon_threadsafe(task.cancel)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def leaves(error: BaseException) -> list[BaseException]:
    """The single exceptions inside any nesting of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def _explain(error: BaseException, node: str) -> int:
    inner = [leaf for leaf in leaves(error) if not isinstance(leaf, asyncio.CancelledError | KeyboardInterrupt)]
    if not inner:
        return 0
    if all(isinstance(leaf, Problem) for leaf in inner):
        for text in dict.fromkeys(str(leaf) for leaf in inner):
            print(f"{node}: {text}", file=sys.stderr)
        return 1
    logging.getLogger("megace2").error("crashed", exc_info=error)
    return 2


async def tell_health(bus: Bus, topic: str, health: Callable[[], bytes], interval: float) -> None:
    """Publish `health()` every `interval` seconds, and once more at the end."""
    try:
        while True:
            await asyncio.sleep(interval)
            with contextlib.suppress(NotPublished):
                await bus.publish(topic, health(), qos=0, retain=True)
    finally:
        with contextlib.suppress(NotPublished, TimeoutError):
            async with asyncio.timeout(1):
                await bus.publish(topic, health(), retain=True)
