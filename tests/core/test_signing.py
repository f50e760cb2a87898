"""Signed messages: what is believed, and everything that is not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="signatures need the extra `secure`")
from broker.lab.registry import Enrolled
from broker.lab.site import Site, SiteConfig
from megace2_iot.codec import DecodeError
from megace2_iot.identity import load_identity
from megace2_iot.problems import Problem
from megace2_iot.signing import HEAD, MAGIC, STAMPS, Seal

BODY = b"M2\x01\x00 what was said"


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of site `lab`: a cloud, two edges, a device; and of a site `other` a cloud."""
    root = tmp_path_factory.mktemp("sites")
    for name, nodes in (("lab", ("cloud", "edge-1", "edge-2", "cam-01")), ("other", ("cloud",))):
        site = Site.create(root / name, SiteConfig(name=name, hosts=("127.0.0.1",)))
        for node in nodes:
            role = {"cloud": "cloud", "cam-01": "device"}.get(node, "edge")
            site.enroll(Enrolled.model_validate({"id": node, "role": role}), root / name / "out")
    return root


def seal_of(identities: Path, node: str, site: str = "lab") -> Seal:
    folder = identities / site / "out" / node
    return Seal(folder, load_identity(folder))


def hear(seal: Seal, topic: str, data: bytes) -> bytes:
    address = seal.address(topic)
    assert address is not None
    return seal.incoming(topic, address, data)


@pytest.mark.parametrize(
    ("signer", "topic"),
    [
        ("cloud", "cloud/all/model"),
        ("edge-1", "cloud/updates/edge-1"),
        ("edge-1", "edge/edge-1/all/round"),
        ("edge-1", "device/cam-01/dn/config/edge-1"),
        ("cloud", "edge/edge-1/dn/verdict/cloud"),
        ("cam-01", "device/cam-01/up/update/edge-1"),
    ],
)
def test_who_may_speak_on_a_topic_is_believed_and_nobody_else(identities: Path, signer: str, topic: str) -> None:
    """Protects every decision that nodes take from messages: the topic says whose signature it must carry."""
    topic = f"megace2/v1/lab/{topic}"
    listener = seal_of(identities, "cam-01")
    assert hear(listener, topic, seal_of(identities, signer).outgoing(topic, BODY)) == BODY
    for other in {"cloud", "edge-1", "edge-2", "cam-01"} - {signer}:
        with pytest.raises(DecodeError, match="may say this"):
            hear(listener, topic, seal_of(identities, other).outgoing(topic, BODY))


def test_nothing_unsigned_and_nothing_changed_is_believed(identities: Path) -> None:
    """Protects against whoever can write to the broker: each changed byte is noticed, and so is a cut."""
    topic = "megace2/v1/lab/cloud/all/model"
    listener, signed = seal_of(identities, "edge-1"), seal_of(identities, "cloud").outgoing(topic, BODY)
    for data in (BODY, MAGIC, signed[:60], signed[:-1], signed + b"x"):
        with pytest.raises(DecodeError):
            hear(listener, topic, data)
    certificate = HEAD.size + HEAD.unpack_from(signed)[2]
    for place in {*range(len(signed))} - {*range(certificate - 75, certificate)}:  # DER leaves a bit of these open
        with pytest.raises(DecodeError):
            hear(listener, topic, signed[:place] + bytes([signed[place] ^ 1]) + signed[place + 1 :])
    assert hear(listener, topic, signed) == BODY


def test_a_message_cannot_be_moved_to_another_topic(identities: Path) -> None:
    """Protects devices from another device's configuration: the topic is signed too."""
    signed = seal_of(identities, "edge-1").outgoing("megace2/v1/lab/device/cam-01/dn/config/edge-1", BODY)
    with pytest.raises(DecodeError, match="moved"):
        hear(seal_of(identities, "cam-01"), "megace2/v1/lab/device/cam-02/dn/config/edge-1", signed)


def test_an_older_message_is_not_believed_again_but_a_retained_one_is(identities: Path) -> None:
    """Protects against captured messages; every reconnect brings the retained one once more."""
    topic = "megace2/v1/lab/cloud/all/model"
    cloud, listener = seal_of(identities, "cloud"), seal_of(identities, "edge-1")
    old, new = cloud.outgoing(topic, b"old"), cloud.outgoing(topic, b"new")
    assert [hear(listener, topic, data) for data in (old, new, new)] == [b"old", b"new", b"new"]
    with pytest.raises(DecodeError, match="repetition"):
        hear(listener, topic, old)


def test_stamps_rise_over_a_restart_whatever_the_clock_says(identities: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects a node without a clock: what it signs after a boot in 1970 is not taken for a repetition."""
    topic = "megace2/v1/lab/device/cam-01/dn/config/edge-2"
    listener, before = seal_of(identities, "cam-01"), seal_of(identities, "edge-2").outgoing(topic, b"before")
    assert (identities / "lab" / "out" / "edge-2" / STAMPS).stat().st_mode & 0o077 == 0
    hear(listener, topic, before)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert hear(listener, topic, seal_of(identities, "edge-2").outgoing(topic, b"after")) == b"after"


def test_another_site_is_not_believed(identities: Path) -> None:
    """Protects the border of a site: its authority is its own, though names are the same."""
    topic = "megace2/v1/lab/cloud/all/model"
    stranger = seal_of(identities, "cloud", "other")
    signed = stranger._signer.sign(topic, BODY) if stranger._signer else b""
    with pytest.raises(DecodeError, match="authority"):
        hear(seal_of(identities, "edge-1"), topic, signed)


def test_a_certificate_for_connections_does_not_sign(identities: Path, tmp_path: Path) -> None:
    """Protects the difference between being there and deciding: each certificate is for one purpose."""
    folder = identities / "lab" / "out" / "cloud"
    for name in ("node.json", "ca.crt", "signing.key"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "signing.key").chmod(0o600)
    (tmp_path / "signing.crt").write_bytes((folder / "node.crt").read_bytes())
    topic = "megace2/v1/lab/cloud/all/model"
    signed = Seal(tmp_path, load_identity(tmp_path)).outgoing(topic, BODY)
    with pytest.raises(DecodeError, match="not for signing"):
        hear(seal_of(identities, "edge-1"), topic, signed)


def test_an_expired_certificate_is_not_believed(identities: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects against keys that were lost long ago."""
    topic = "megace2/v1/lab/cloud/all/model"
    signed = seal_of(identities, "cloud").outgoing(topic, BODY)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 800 * 86_400)
    with pytest.raises(DecodeError, match="not valid at this time"):
        hear(seal_of(identities, "edge-1"), topic, signed)


def test_what_needs_no_signature_has_none(identities: Path) -> None:
    """Protects the packets' size and speed: only what decides is signed; clearing a retained message stays empty."""
    edge = seal_of(identities, "edge-1")
    for topic in ("device/cam-01/up/packet/edge-1", "device/cam-01/dn/prediction/edge-1", "edge/edge-1/all/health"):
        assert edge.address(f"megace2/v1/lab/{topic}") is None
        assert edge.outgoing(f"megace2/v1/lab/{topic}", BODY) == BODY
    assert edge.outgoing("megace2/v1/lab/edge/edge-1/all/model", b"") == b""


def test_a_damaged_identity_is_told(identities: Path, tmp_path: Path) -> None:
    """Protects who copies keys by hand: what is wrong is said with the file's name."""
    folder = identities / "lab" / "out" / "edge-1"
    for name in ("node.json", "ca.crt", "signing.crt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "signing.key").write_text("no key")
    (tmp_path / "signing.key").chmod(0o644)
    with pytest.raises(Problem, match="chmod 600"):
        load_identity(tmp_path)
    (tmp_path / "signing.key").chmod(0o600)
    with pytest.raises(Problem, match=r"signing\.key cannot be used"):
        Seal(tmp_path, load_identity(tmp_path))
