"""What `megace2 doctor` finds of an identity, and that it leaves a running node alone."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="a site needs the extra `secure`")
from sites import enroll_all, make_site, served
from tiers import until

from megace2_iot.bus import connect
from megace2_iot.cli.checkup.check import Check
from megace2_iot.cli.checkup.identities import check_handshake, check_identities, check_identity
from megace2_iot.identity import load_identity

NOW = datetime.datetime.now(datetime.UTC)


def states(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


async def test_a_running_node_stays_connected(tmp_path: Path) -> None:
    """Another connection under its name would end its own: the handshake says enough."""
    site = make_site(tmp_path)
    settings = enroll_all(site, tmp_path / "out")
    async with served(site, "embedded"), connect(settings, "cam-01") as bus:
        await until(lambda: bus.connected)
        known, _ = settings.known_as("cam-01")
        checks = await check_handshake(known, NOW)
        assert bus.connected
    assert states(checks) == {site.config.url: "ok", "broker's certificate": "ok"}


async def test_a_revoked_node_hears_why(tmp_path: Path) -> None:
    """In TLS 1.3 the refusal comes after the client's handshake: it is waited for."""
    site = make_site(tmp_path)
    settings = enroll_all(site, tmp_path / "out")
    site.revoke(["cam-01"])
    async with served(site, "embedded"):
        [check] = await check_handshake(settings.known_as("cam-01")[0], NOW)
    assert check.state == "missing"
    assert "megace2 broker list" in check.advice


async def test_a_broker_under_another_name_is_told_apart_from_none(tmp_path: Path) -> None:
    """Both are common after a change of addresses, and want different remedies."""
    site = make_site(tmp_path, hosts=("127.0.0.1",))
    known, _ = enroll_all(site, tmp_path / "out").known_as("cam-01")
    moved = known.model_copy(update={"url": known.url.replace("127.0.0.1", "localhost")})
    async with served(site, "embedded"):
        [elsewhere] = await check_handshake(moved, NOW)
    [nobody] = await check_handshake(known, NOW)
    assert (elsewhere.found, nobody.found) == ("its certificate does not fit", "not reached")


@pytest.mark.parametrize(("days", "state"), [(600, "ok"), (710, "advised"), (740, "missing")])
def test_certificates_that_end_are_told_in_time(tmp_path: Path, days: int, state: str) -> None:
    """They last 730 days: a month before, it is time; afterwards nothing works."""
    enroll_all(make_site(tmp_path), tmp_path / "out")
    folder = tmp_path / "out" / "cam-01"
    found = states(check_identity(load_identity(folder), folder, NOW + datetime.timedelta(days=days)))
    assert found == {"cam-01": "ok", "certificate": state, "signing certificate": state, "authority": "ok"}


def test_a_folder_of_several_identities_is_looked_at_whole(tmp_path: Path) -> None:
    """A replay has one for each of its devices."""
    settings = enroll_all(make_site(tmp_path), tmp_path / "out")
    (tmp_path / "out" / "cam-02" / "node.crt").write_text("damaged")
    checks = check_identities(settings)
    assert {"cam-01", "cam-02", "edge-1"} <= {check.name for check in checks}
    assert [check.found[:14] for check in checks if check.name == "certificate" and check.advice] == ["cannot be read"]
