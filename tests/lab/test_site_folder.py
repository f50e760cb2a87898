"""A site's folder: who is admitted, who is not, and what the broker is given to read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="a site needs the extra `secure`")
from cryptography import x509

from broker.lab.access_list import rules
from broker.lab.certificates import new_signing_key, new_tls_key, public_part
from broker.lab.registry import Enrolled
from broker.lab.site import Site, SiteConfig
from broker.settings import BrokerError
from megace2_iot.topics import Topics, matches


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site.create(tmp_path / "lab", SiteConfig(name="lab", hosts=("broker.lab", "10.0.0.5")))


def node(name: str, role: str = "device", **more: object) -> Enrolled:
    return Enrolled.model_validate({"id": name, "role": role, **more})


def public() -> dict[str, bytes]:
    return {"tls": public_part(new_tls_key()), "signing": public_part(new_signing_key())}


def may(who: Enrolled, access: str, topic: str) -> bool:
    return any(kind == access and matches(rule, f"megace2/v1/lab/{topic}") for kind, rule in rules(Topics(), who))


def test_a_device_speaks_for_itself_and_hears_what_is_meant_for_it() -> None:
    """Protects each device from every other: its access is its own topics, its edge's and the cloud's."""
    cam = node("cam-01", edge="edge-1")
    assert may(cam, "write", "device/cam-01/up/packet/edge-1")
    assert may(cam, "read", "device/cam-01/dn/prediction/edge-1")
    assert may(cam, "read", "edge/edge-1/all/chunk/0a0b")
    assert not may(cam, "write", "device/cam-02/up/packet/edge-1")
    assert not may(cam, "write", "device/cam-01/dn/config/edge-1")
    assert not may(cam, "write", "device/cam-01/up/packet/edge-2")
    assert not may(cam, "read", "device/cam-01/up/packet/edge-1")
    assert not may(cam, "read", "edge/edge-2/all/round")


def test_an_edge_speaks_in_its_own_name_only() -> None:
    """Protects devices and the cloud from an edge that plays another."""
    edge = node("edge-1", "edge")
    assert may(edge, "read", "device/cam-01/up/packet/edge-1")
    assert may(edge, "write", "device/cam-01/dn/config/edge-1")
    assert may(edge, "write", "cloud/updates/edge-1")
    assert not may(edge, "read", "device/cam-01/up/packet/edge-2")
    assert not may(edge, "write", "device/cam-01/dn/config/edge-2")
    assert not may(edge, "write", "cloud/updates/edge-2")
    assert not may(edge, "write", "cloud/all/model")


def test_extra_topics_are_given_by_name() -> None:
    """Protects the use of topics that are not ours, as a device that takes text from one."""
    cam = node("cam-01", read=("kitchen/+/text",), write=("kitchen/lamp",))
    assert ("read", "kitchen/+/text") in rules(Topics(), cam)
    assert ("write", "kitchen/lamp") in rules(Topics(), cam)


def test_a_node_is_admitted_once_renewed_on_request_and_can_come_back(site: Site, tmp_path: Path) -> None:
    """Protects ids: nobody takes over a node's name by mistake."""
    site.enroll(node("cam-01"), tmp_path)
    with pytest.raises(BrokerError, match="--renew"):
        site.enroll(node("cam-01"), tmp_path)
    site.enroll(node("cam-01"), tmp_path, renew=True)
    assert len(site.nodes()["cam-01"].serials) == 4
    assert site.revoke(["cam-01"]) == ["cam-01"]
    assert site.revoke(["cam-01"]) == []
    site.enroll(node("cam-01"), tmp_path)
    assert site.nodes()["cam-01"].revoked_at is None


@pytest.mark.parametrize(("name", "role"), [("cloud", "edge"), ("brain", "cloud"), ("site-keeper", "device")])
def test_names_that_mean_something_are_kept(site: Site, tmp_path: Path, name: str, role: str) -> None:
    """Protects the cloud's name, and the site's own."""
    with pytest.raises(BrokerError, match=r"called|choose another"):
        site.enroll(node(name, role), tmp_path)


def test_the_revoked_are_listed_by_every_certificate_they_had(site: Site, tmp_path: Path) -> None:
    """Protects against the keys of before a renewal: they are shut out as well."""
    site.enroll(node("cam-01"), tmp_path)
    site.enroll(node("cam-01"), tmp_path, renew=True)
    site.enroll(node("cam-02"), tmp_path)
    site.revoke(["cam-01"])
    listed = x509.load_pem_x509_crl((site.folder / "pki" / "crl.pem").read_bytes())
    assert {entry.serial_number for entry in listed} == set(site.nodes()["cam-01"].serials)
    assert "user cam-01" not in (site.folder / "acl").read_text()
    assert "user cam-02" in (site.folder / "acl").read_text()


def test_an_invitation_is_good_once_for_one_node_and_for_a_while(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the join string: who reads it later, or over a shoulder, gets nothing."""
    token = site.invite(node("cam-01"))
    assert token not in (site.folder / "nodes.json").read_text()
    for name, guess in (("cam-02", token), ("cam-01", "guess"), ("cam-01", "")):
        with pytest.raises(BrokerError, match="no open invitation"):
            site.admit(name, guess, public())
    with pytest.raises(BrokerError, match="EC P-256"):  # a wrong key does not use it up
        site.admit("cam-01", token, {"tls": public()["signing"], "signing": public()["tls"]})
    assert site.admit("cam-01", token, public())[0].id == "cam-01"
    with pytest.raises(BrokerError, match="no open invitation"):
        site.admit("cam-01", token, public())
    late = site.invite(node("cam-03"))
    monkeypatch.setattr("broker.lab.registry.time.time", lambda: 4e9)
    with pytest.raises(BrokerError, match="no open invitation"):
        site.admit("cam-03", late, public())


def test_a_newer_invitation_and_a_revocation_end_an_older_one(site: Site) -> None:
    """Protects who sent a join string to the wrong person."""
    first, second = site.invite(node("cam-01")), site.invite(node("cam-01"))
    with pytest.raises(BrokerError, match="no open invitation"):
        site.admit("cam-01", first, public())
    site.admit("cam-01", second, public())
    third = site.invite(node("cam-01"), renew=True)
    site.revoke(["cam-01"])
    with pytest.raises(BrokerError, match="no open invitation"):
        site.admit("cam-01", third, public())


def test_admissions_at_once_lose_nobody(site: Site, tmp_path: Path) -> None:
    """Protects the list of nodes: commands and the enrolment service change it at the same time."""
    names = [f"cam-{number:02d}" for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: site.enroll(node(name), tmp_path), names))
    assert sorted(site.nodes()) == names
    acl = (site.folder / "acl").read_text()
    assert all(f"user {name}" in acl for name in names)


def test_the_brokers_certificate_names_its_hosts(site: Site) -> None:
    """Protects every connect: a node checks the name it calls."""
    certificate = x509.load_pem_x509_certificate((site.folder / "pki" / "broker.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.lab"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5"]
    assert site.config.url == "mqtts://broker.lab:8883"


def test_keys_are_their_owners(site: Site, tmp_path: Path) -> None:
    """Protects the site: nobody else on the machine reads the authority's key, or who has which password."""
    assert site.folder.stat().st_mode & 0o077 == 0
    for name in ("pki/ca.key", "pki/broker.key", "passwords", "nodes.json", "mosquitto.conf"):
        assert (site.folder / name).stat().st_mode & 0o077 == 0


def test_a_site_is_not_made_twice_nor_opened_where_there_is_none(site: Site, tmp_path: Path) -> None:
    """Protects an authority from being replaced: all certificates would end."""
    with pytest.raises(BrokerError, match="holds a site already"):
        Site.create(site.folder, site.config)
    with pytest.raises(BrokerError, match="broker init"):
        Site(tmp_path / "nowhere")
    (site.folder / "nodes.json").write_text("{")
    with pytest.raises(BrokerError, match="backup"):
        site.nodes()


def test_passwords_in_place_of_certificates(tmp_path: Path) -> None:
    """Protects labs whose clients know no certificates: the secret is written once, its hash is kept."""
    site = Site.create(tmp_path / "lab", SiteConfig(name="lab", hosts=("b",), auth="passwords"))
    folder = site.enroll(node("cam-01"), tmp_path / "out")
    secret = (folder / "password").read_text().strip()
    stored = (site.folder / "passwords").read_text()
    assert stored.startswith("cam-01:$7$101$")
    assert secret not in stored + (site.folder / "nodes.json").read_text()
    assert not (folder / "node.crt").exists()
    assert (folder / "signing.key").exists()
