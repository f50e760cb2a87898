"""Mosquitto's password file and access list, read by the embedded broker: the same people, the same rights."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import subprocess
import threading
from pathlib import Path

import pytest
from absent import program
from pki import password_line
from wire import Wire, answer_of, refusal, wire5

from broker import AccessFiles, BrokerError, EmbeddedSettings, embedded_broker
from broker.access import Guard
from broker.acl import READ, WRITE, parse
from broker.codec import encode
from broker.packets import V5, Connack, Connect, Disconnect, Publish
from broker.passwords import Hashed, Users
from broker.reasons import Reason
from broker.session import Identity
from broker.settings import Access

ACL = """
# who gave no name
topic read open/#

user edge
topic lab/+/up/#
topic read lab/my room/#
topic deny lab/cam-09/#

pattern write lab/%u/up/#
pattern readwrite own/%c
"""


@pytest.mark.parametrize(
    ("username", "client_id", "access", "topic", "answer"),
    [
        ("edge", "e", READ, "lab/cam-01/up/x", True),
        ("edge", "e", WRITE, "lab/cam-01/up/x", True),
        ("edge", "e", READ, "lab/my room/x", True),
        ("edge", "e", WRITE, "lab/my room/x", False),
        ("edge", "e", READ, "lab/cam-09/up/x", False),
        ("edge", "e", WRITE, "lab/cam-01/dn/x", False),
        ("cam-01", "c", WRITE, "lab/cam-01/up/x", True),
        ("cam-01", "c", WRITE, "lab/cam-02/up/x", False),
        ("cam-01", "c", READ, "lab/cam-01/up/x", False),
        ("cam-01", "c", READ, "own/c", True),
        ("+", "#", WRITE, "lab/cam-02/up/x", False),
        (None, "c", READ, "open/x", True),
        (None, "c", WRITE, "open/x", False),
        ("cam-01", "c", READ, "open/x", False),
    ],
)
def test_an_access_list_means_what_it_means_to_mosquitto(
    username: str | None, client_id: str, access: int, topic: str, answer: bool
) -> None:
    """Protects every right: of a user, by pattern, of the nameless; denials go first, wildcards in names get none."""
    rights = parse(ACL.splitlines())
    for _ in range(2):  # the second answer is a remembered one
        assert rights.may(Identity(client_id, username), access, topic) is answer


@pytest.mark.parametrize(
    ("topic_filter", "answer"),
    [("#", True), ("lab/+/up/a", True), ("lab/cam-09/#", False), ("lab/cam-09/up/x", False), ("other/#", False)],
)
def test_a_subscription_is_granted_where_anything_of_it_may_be_read(topic_filter: str, answer: bool) -> None:
    """Protects both: a wide filter is useful to who may read a part of it, and one that brings nothing is refused."""
    assert parse(ACL.splitlines()).may_subscribe(Identity("e", "edge"), topic_filter) is answer


@pytest.mark.parametrize("text", ["topics a", "user", "topic read a/#/b", "pattern write +x"])
def test_a_mistake_in_an_access_list_is_named(text: str) -> None:
    """Protects from a typing error that would open or close more than was meant."""
    with pytest.raises(ValueError, match="line 2"):
        parse(["# fine", text])


def test_passwords_are_those_of_mosquitto_passwd(tmp_path: Path) -> None:
    """Protects the users of a lab that moves from Mosquitto: its own file is read as it is."""
    command = program("mosquitto_passwd", "mosquitto")
    path = tmp_path / "users"
    for name, create in (("cam-01", ["-c"]), ("edge", [])):
        subprocess.run([command, *create, "-b", path, name, f"secret of {name}"], check=True)
    users = Users.read(path)
    assert users.accept("cam-01", b"secret of cam-01")
    assert not users.accept("cam-01", b"secret of edge")
    assert not users.accept("nobody", b"")
    assert "edge" in users
    assert None not in users


def test_an_old_hash_is_read_too() -> None:
    """Protects files of Mosquitto 1.6: one round of SHA-512."""
    salt, digest = b"salt", hashlib.sha512(b"pw" + b"salt").digest()
    hashed = Hashed.parse(f"$6${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}")
    assert hashed.fits(b"pw")
    assert not hashed.fits(b"pw2")


@pytest.mark.parametrize("text", ["name", "name:plain", "name:$5$a$b", "name:$7$0$YQ==$YQ==", "name:$7$1$*$YQ=="])
def test_a_mistake_in_a_password_file_is_named(tmp_path: Path, text: str) -> None:
    """Protects from a file of plain passwords, or one that was cut off."""
    path = tmp_path / "users"
    path.write_text(f"# users\n{text}\n")
    with pytest.raises(BrokerError, match="line 2"):
        Users.read(path)


async def test_users_log_in_and_the_rest_stays_out(tmp_path: Path) -> None:
    """Protects the door: the right password, a wrong one, an unknown name, and none at all."""
    users = tmp_path / "users"
    users.write_text(password_line("edge", "pw"))
    async with embedded_broker(EmbeddedSettings(access_files=AccessFiles(users=users))) as broker:
        async with Wire(broker.port, "e", username="edge", password=b"pw") as edge:
            await edge.publish("t", b"x")
        for username, password in (("edge", b"no"), ("other", b"pw"), ("edge", None), (None, None)):
            attempt = Connect("e", username=username, password=password)
            assert await answer_of(broker.port, encode(attempt)) == encode(Connack(4))
        assert broker.stats().ended == {"lost": 1, "refused": 4}


async def test_anonymous_clients_may_be_let_in_beside_users(tmp_path: Path) -> None:
    """Protects open corners of a closed broker: the nameless have their own rights only."""
    (tmp_path / "users").write_text(password_line("edge", "pw"))
    (tmp_path / "acl").write_text(ACL)
    files = AccessFiles(users=tmp_path / "users", acl=tmp_path / "acl", anonymous=True)
    async with embedded_broker(EmbeddedSettings(access_files=files)) as broker, wire5(broker.port, "x") as nameless:
        assert await nameless.subscribe(("open/#", 1), ("lab/#", 1), ("#", 1)) == (1, 0x87, 1)
        async with wire5(broker.port, "e", username="edge", password=b"pw") as edge:
            assert await edge.publish("open/a") == Reason.NOT_AUTHORIZED
            assert await edge.publish("lab/a/up/b", retain=True) == Reason.NO_MATCHING_SUBSCRIBERS
        assert await nameless.nothing_for(0.05)
        wrong = Connect("e", username="edge", password=b"no", level=V5)
        assert (await refusal(broker.port, wrong)).return_code == Reason.BAD_LOGIN


async def test_a_slow_password_check_stops_nobody_else(tmp_path: Path) -> None:
    """Protects the loop from the cost of a hash, and a client that sends on before it is let in."""
    users = tmp_path / "users"
    users.write_text(password_line("edge", "pw"))
    entered, go_on = threading.Event(), threading.Event()

    def slowly(self: Users, username: str, password: bytes) -> bool:
        entered.set()
        return go_on.wait(10)

    files = AccessFiles(users=users, anonymous=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Users, "accept", slowly)
        async with embedded_broker(EmbeddedSettings(access_files=files)) as broker, Wire(broker.port, "free") as free:
            await free.subscribe(("t", 1))
            reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
            writer.write(encode(Connect("e", username="edge", password=b"pw")) + bytes.fromhex("3004000174 78"))
            await asyncio.to_thread(entered.wait, 10)
            await free.publish("t", b"meanwhile")
            assert (await free.receive()).payload == b"meanwhile"
            go_on.set()
            assert await reader.readexactly(4) == encode(Connack())
            assert (await free.receive()).payload == b"x"
            writer.close()
            await writer.wait_closed()


async def test_a_reload_ends_who_may_not_stay(tmp_path: Path) -> None:
    """Protects a site after an account was closed: its connection ends, the others have the rights of the new list."""
    users, acl = tmp_path / "users", tmp_path / "acl"
    users.write_text(password_line("stays", "pw") + password_line("goes", "pw"))
    acl.write_text("pattern readwrite t\n")
    settings = EmbeddedSettings(access_files=AccessFiles(users=users, acl=acl))
    async with (
        embedded_broker(settings) as broker,
        wire5(broker.port, "a", username="stays", password=b"pw") as stays,
        wire5(broker.port, "b", username="goes", password=b"pw") as goes,
    ):
        await stays.subscribe(("t", 1))
        await stays.send(Publish("t", b"x"))
        assert (await stays.receive()).payload == b"x"
        users.write_text(password_line("stays", "pw"))
        acl.write_text("pattern write t\n")
        await broker.reload()
        assert (await goes.expect(Disconnect)).reason == Reason.NOT_AUTHORIZED
        assert await stays.publish("t") == Reason.NO_MATCHING_SUBSCRIBERS
        acl.write_text("nonsense\n")
        with pytest.raises(BrokerError, match="nonsense"):
            await broker.reload()
        assert await stays.publish("t") == Reason.NO_MATCHING_SUBSCRIBERS


def test_hooks_and_files_must_agree(tmp_path: Path) -> None:
    """Protects a program's own rules beside the files: each can only forbid."""
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite a\ntopic readwrite b\n")
    hooks = Access(may_publish=lambda client, topic: topic != "b", may_read=lambda client, topic: topic != "a")
    guard = Guard(hooks, AccessFiles(acl=acl, anonymous=True))
    someone = Identity("x")
    assert [guard.may_publish(someone, topic) for topic in "abc"] == [True, False, False]
    assert [guard.may_read(someone, topic) for topic in "abc"] == [False, True, False]
    assert guard.may_subscribe(someone, "#")
