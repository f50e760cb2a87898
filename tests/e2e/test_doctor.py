"""`megace2 doctor` on this machine, and its judgement of machines that are not here."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tomllib
from pathlib import Path

import pytest
from tiers import command

from cloud_aggregator.cloud import CloudSettings
from device_agent.settings import DeviceSettings
from edge_gateway.settings import EdgeSettings
from megace2_iot.bus import BrokerSettings
from megace2_iot.cli.checkup import sensors, software, surroundings
from megace2_iot.messages import Hardware
from megace2_iot.service import Settings

NOBODY = "mqtt://127.0.0.1:1"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads what Linux tells")


@pytest.fixture
def silent_broker():
    """Something listens there, and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"mqtt://127.0.0.1:{listening.getsockname()[1]}"


def by_name(checks):
    return {check.name: check for check in checks}


# -- the command ----------------------------------------------------------------------
async def test_all_is_well_for_an_edge(run_embedded, tmp_path):
    """With a broker there is nothing that it lacks; torch is found, and never imported."""
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': raise RuntimeError('doctor imports torch')\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    async with run_embedded() as broker:
        status, printed = await command(
            *("doctor", "--for", "edge", "--json", "--broker", broker.url), PYTHONPATH=str(tmp_path)
        )
    told = json.loads(printed)
    assert (status, told["well"], told["for"]) == (0, True, ["edge"]), printed
    assert {check["state"] for check in told["checks"]} <= {"ok", "absent", "advised"}
    assert told["hardware"]["cores"] > 0


async def test_a_table_of_eighty_columns_says_what_to_do(tmp_path):
    """Without a broker it ends with 1, and names the way out of it."""
    status, printed = await command("doctor", "--broker", NOBODY)
    table, _, advice = printed.partition("Needed:")
    assert status == 1
    assert max(map(len, table.splitlines())) <= 80
    assert f"no way to {NOBODY}" in advice and "megace2 broker" in advice


async def test_a_broker_that_says_nothing_is_given_up(silent_broker):
    """After its patience, and the password stays where it was."""
    settings = BrokerSettings(url=silent_broker, username="lab", password="secret-word")
    async with asyncio.timeout(5):
        check = await surroundings.check_broker(settings, "doctor-1", patience=0.2)
    assert check.state == "missing"
    assert "secret-word" not in repr(check)


async def test_what_a_broker_lacks_is_advised(run_embedded):
    """It is no fault of the machine, and something can be done about it."""
    async with run_embedded(max_retained_messages=0) as broker:
        found = by_name(await surroundings.check_abilities(BrokerSettings(url=broker.url), "site/probe"))
    assert (found["QoS 1"].state, found["retained"].state) == ("ok", "advised")
    assert "repeat_retained" in found["retained"].advice


async def test_a_broker_that_is_gone_is_not_tried():
    """It was there a moment ago, and the doctor goes on."""
    (check,) = await surroundings.check_abilities(BrokerSettings(url=NOBODY), "site/probe")
    assert (check.name, check.state) == ("abilities", "absent")


# -- software -------------------------------------------------------------------------
def test_the_extras_are_those_of_the_package():
    """A new package of an extra must be looked for, too."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    asked = project["optional-dependencies"]
    for extra, packages in software.EXTRAS.items():
        assert packages == tuple(line.split(">=")[0] for line in asked[extra]), extra
    assert {line.split(">=")[0] for line in project["dependencies"]} >= set(software.CORE)


@pytest.mark.parametrize(
    ("roles", "senses", "missing"),
    [
        (("device",), False, set()),
        (("device",), True, {"[sense]"}),
        (("edge",), True, {"[torch]"}),
        (("device", "edge", "cloud"), True, {"[sense]", "[torch]"}),
    ],
)
def test_what_is_needed_depends_on_the_tier(roles, senses, missing):
    """A device without sensors replays, and needs the core only."""
    bare = dict.fromkeys(software.CORE, "1.0")
    checks = software.check_software(roles, senses=senses, version=bare.get)
    assert {check.name for check in checks if check.state == "missing"} == missing
    assert all("pip install" in check.advice for check in checks if check.state == "missing")


def test_a_build_for_cpus_beside_a_graphics_card_is_told():
    """The card would idle, and nothing would say so."""
    installed = dict.fromkeys(software.CORE, "1.0") | {"torch": "2.13.0+cpu"}
    found = by_name(software.check_software(("edge",), senses=False, accelerator="cuda:H100", version=installed.get))
    assert "use H100" in found["CUDA"].advice


def test_decoders_of_what_is_not_installed_are_not_looked_at():
    """Then the extra's row says it."""
    assert software.check_decoders(needed=True, version=lambda _: None) == []


# -- sensors, disk, machine -----------------------------------------------------------
@pytest.fixture
def sensing(tmp_path):
    """A machine with one camera and one microphone, and their device files."""
    files = {"sys/class/video4linux/video0/name": "C920", "proc/asound/pcm": "01-00: USB Audio : : capture 1"}
    for name, text in {**files, "dev/video0": "", "dev/snd/pcmC1D0c": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_sensors_that_may_be_opened(sensing):
    """They are named."""
    found = by_name(sensors.check_sensors(sensing, lambda _: True))
    assert (found["cameras"].found, found["cameras"].state) == ("video0: C920", "ok")
    assert (found["microphones"].found, found["microphones"].state) == ("hw:1,0: USB Audio", "ok")


def test_sensors_that_may_not_be_opened(sensing):
    """The usual trouble on a new Raspberry Pi: the user is in no group."""
    found = by_name(sensors.check_sensors(sensing, lambda _: False))
    assert "usermod -aG video" in found["cameras"].advice
    assert "usermod -aG audio" in found["microphones"].advice
    assert {check.state for check in found.values()} == {"missing"}


def test_sensors_that_a_container_was_not_given(sensing):
    """It sees the host's /sys, and not its device files."""
    (sensing / "dev/video0").unlink()
    found = by_name(sensors.check_sensors(sensing, lambda _: True))
    assert "video0 missing: give it to this container" in found["cameras"].advice


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("camera:/dev/video0", ""),
        ("camera:/dev/video7", "video7 is not there"),
        ("camera:film.mp4", ""),
        ("mic:hw:1,0", ""),
        ("mic", ""),
    ],
)
def test_sources_of_the_settings_must_be_there(sensing, source, advice):
    """A device with a camera in its settings that is unplugged would only wait for it."""
    (check,) = sensors.check_sources([source], sensing, lambda _: True)
    assert advice in check.advice and bool(check.advice) == bool(advice)


def test_sources_without_a_sensor(tmp_path):
    """A microphone where ALSA has none, and what is no sensor."""
    found = sensors.check_sources(["mic", "stdin", "topic:lab/words", "camera"], tmp_path)
    assert [(check.name, check.state) for check in found] == [("source mic", "missing"), ("source camera", "missing")]


def test_places_are_those_of_the_tiers():
    """Their settings are not read for it: an edge's would import torch."""
    for role, settings in (("device", DeviceSettings), ("edge", EdgeSettings), ("cloud", CloudSettings)):
        assert surroundings.STATE_DIRS[role] == settings.model_fields["state_dir"].default


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    """An outbox that cannot grow loses windows."""
    monkeypatch.setattr(surroundings, "free_disk", lambda _: 5 << 20)
    settings = Settings(None, {"device": {"state_dir": str(tmp_path), "edge": "edge-1"}})
    (check,) = surroundings.check_disk(settings, ("device",))
    assert check.state == "missing" and "make room" in check.advice


def test_a_small_warm_machine():
    """It streams, and does not train: worth knowing, no fault."""
    found = by_name(surroundings.check_machine(Hardware(memory=512 << 20, temperature=81.5), ("device",)))
    assert found["memory"].state == found["temperature"].state == "advised"
    assert found["temperature"].found == "81.5 degrees Celsius"
