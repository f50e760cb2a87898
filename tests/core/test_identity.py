"""Identities and addresses: who a node may be, and where it may speak in the clear."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from megace2_iot.bus import BrokerSettings
from megace2_iot.bus.settings import is_loopback
from megace2_iot.identity import Identity, load_identity, write_identity
from megace2_iot.problems import Problem
from megace2_iot.service import Settings, find_place

CAM = Identity(id="cam-01", role="device", site="barn", base="farm", url="mqtts://10.0.0.5:8883", edge="edge-7")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_plain_mqtt_stays_on_this_machine(host: str) -> None:
    """Protects the demo and the tests: nothing to allow on the loopback."""
    assert BrokerSettings(url=f"mqtt://{host}:1883").tls() is None


@pytest.mark.parametrize("host", ["10.0.0.1", "lab.local", "[2001:db8::1]", "0.0.0.0", "127.0.0.1.example.org"])
def test_plain_mqtt_to_another_machine_is_refused_unless_insecure_is_typed(host: str) -> None:
    """Protects a lab from speaking in the clear by mistake."""
    with pytest.raises(ValidationError, match="in the clear"):
        BrokerSettings(url=f"mqtt://{host}:1883")
    assert BrokerSettings(url=f"mqtt://{host}:1883", insecure=True).host
    assert BrokerSettings(url=f"mqtts://{host}:8883").secure
    assert not is_loopback(host.strip("[]"))


def test_an_identity_gives_a_node_all_it_needs(tmp_path: Path) -> None:
    """Protects the one option of a device: its id, its edge, its site and its broker come with its keys."""
    write_identity(tmp_path / "cam-01", CAM, {"password": b"secret\n"})
    place = find_place(Settings(overrides={"broker": {"identity": tmp_path / "cam-01"}}))
    assert (place.topics.root, place.broker.url) == ("farm/barn", "mqtts://10.0.0.5:8883")
    known, identity = place.broker.known_as("cam-01")
    assert identity == CAM
    assert (known.username, known.password) == ("cam-01", "secret")


def test_a_folder_of_identities_serves_many_devices(tmp_path: Path) -> None:
    """Protects a replay: each of its devices connects as itself."""
    for name in ("sim-01", "sim-02"):
        write_identity(tmp_path / name, CAM.model_copy(update={"id": name}), {"password": name.encode()})
    settings = BrokerSettings(identity=tmp_path)
    assert [settings.known_as(name)[0].password for name in ("sim-01", "sim-02")] == ["sim-01", "sim-02"]
    with pytest.raises(Problem, match="megace2 enroll"):
        settings.known_as("sim-03")


def test_nobody_speaks_under_another_name(tmp_path: Path) -> None:
    """Protects the meaning of an id: it is the certificate's."""
    write_identity(tmp_path / "cam-01", CAM, {})
    with pytest.raises(Problem, match="identity of 'cam-01'"):
        BrokerSettings(identity=tmp_path / "cam-01").known_as("cam-02")


def test_a_site_that_contradicts_its_identity_is_told(tmp_path: Path) -> None:
    """Protects from two truths about the site."""
    write_identity(tmp_path / "cam-01", CAM, {})
    settings = Settings(overrides={"broker": {"identity": tmp_path / "cam-01"}, "site": {"name": "lab"}})
    with pytest.raises(Problem, match="leave it out"):
        find_place(settings)


def test_an_identity_is_written_whole_and_its_secrets_are_its_owners(tmp_path: Path) -> None:
    """Protects keys: a second enrolment replaces the first, foreign folders stay, and others cannot read."""
    folder = tmp_path / "cam-01"
    write_identity(folder, CAM, {"node.key": b"1", "ca.crt": b"a"})
    write_identity(folder, CAM, {"password": b"2"})
    assert sorted(path.name for path in folder.iterdir()) == ["node.json", "password"]
    assert (folder / "password").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(Problem, match="other things"):
        write_identity(tmp_path / "photos", CAM, {})
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_a_damaged_node_file_is_told(tmp_path: Path) -> None:
    """Protects who edits by hand."""
    (tmp_path / "node.json").write_text('{"id": "Cam 1"}')
    with pytest.raises(Problem, match="id: "):
        load_identity(tmp_path)
