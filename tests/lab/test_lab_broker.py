"""A site's Mosquitto as it runs: who gets in, who does not, and who is shut out at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from pathlib import Path
from typing import Literal

import aiomqtt
import pytest

pytest.importorskip("cryptography", reason="a site needs the extra `secure`")
from sites import enroll_all, make_site, served

from broker.lab.enrolment import enrolment_service, join_string
from broker.lab.eviction import evict
from broker.lab.joining import join
from broker.lab.registry import Enrolled
from broker.lab.running import reload, running_pid
from broker.lab.site import Site
from broker.mosquitto_process import find_mosquitto
from broker.settings import BrokerError
from megace2_iot.bus import BrokerSettings, Presence, connect
from megace2_iot.identity import CA, CERTIFICATE, KEY, Identity, write_identity
from megace2_iot.messages import State
from megace2_iot.mqtt import Refused
from megace2_iot.problems import Problem

if find_mosquitto() is None and not os.environ.get("CI"):
    pytest.skip("mosquitto is not installed (apt install mosquitto)", allow_module_level=True)


By = Literal["mosquitto", "embedded"]


@pytest.fixture(params=["certificates", "passwords"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Site, BrokerSettings]:
    """A site with everybody in it, for each way to prove who one is."""
    site = make_site(tmp_path, auth=request.param)
    return site, enroll_all(site, tmp_path / "out")


@pytest.fixture(params=["mosquitto", "embedded"])
def by(request: pytest.FixtureRequest) -> By:
    """Which broker serves the site."""
    chosen: By = request.param
    return chosen


def presence(site: Site, device: str) -> Presence:
    return Presence(
        topic=site.config.topics().device_up(device, "state", "edge-1"),
        payload=lambda state, session: State(state=state, session=session, role="device").encode(),
    )


async def test_messages_pass_within_the_access_list_and_not_beyond(lab: tuple[Site, BrokerSettings], by: By) -> None:
    """Protects everybody from everybody: a device cannot speak as another, nor listen to it."""
    site, settings = lab
    topics = site.config.topics()
    async with served(site, by), connect(settings, "edge-1") as edge, connect(settings, "cam-01") as cam:
        packets = await edge.subscribe(topics.devices_of("edge-1", "packet"))
        spied = await cam.subscribe(topics.everything())
        await cam.wait_connected(5)
        await edge.publish(topics.device_down("cam-02", "prediction", "edge-1"), b"for another")
        await edge.publish(topics.device_down("cam-01", "prediction", "edge-1"), b"mine")
        await cam.publish(topics.device_up("cam-01", "packet", "edge-1"), b"x")
        with pytest.raises(Refused, match="Not authorized"):
            await cam.publish(topics.device_up("cam-02", "packet", "edge-1"), b"forged")
        async with asyncio.timeout(5):
            assert (await anext(packets)).payload == b"x"
            assert (await anext(spied)).payload == b"mine"


async def test_who_is_revoked_is_out_at_once_and_stays_out(lab: tuple[Site, BrokerSettings], by: By) -> None:
    """Protects a lab whose device was stolen: its connection ends, its state says so, it cannot come back."""
    site, settings = lab

    async def stay() -> None:
        async with connect(settings, "cam-01", presence=presence(site, "cam-01")):
            await asyncio.Event().wait()

    async with served(site, by), connect(settings, "ann") as ann, asyncio.timeout(20):
        states = await ann.subscribe(site.config.topics().device_up("cam-01", "state", "+"))
        device = asyncio.create_task(stay())
        assert State.decode((await anext(states)).payload).state == "online"
        site.revoke(["cam-01"])
        assert reload(site)
        await evict(site, site.nodes()["cam-01"])
        while State.decode((await anext(states)).payload).state != "offline":
            pass
        assert not await gets_in(settings)
        device.cancel()
        await asyncio.gather(device, return_exceptions=True)  # a refused password ends a session by itself


async def gets_in(settings: BrokerSettings, node: str = "cam-01") -> bool:
    """Whether the broker takes what a node shows."""
    known, _ = settings.known_as(node)
    try:
        async with aiomqtt.Client(
            *(known.host, known.port),
            identifier=node,
            username=known.username,
            password=known.password,
            tls_context=known.tls(),
            timeout=2,
        ):
            return True
    except aiomqtt.MqttError:
        return False


async def test_nobody_takes_over_a_connection_by_its_client_id(lab: tuple[Site, BrokerSettings], by: By) -> None:
    """Protects a device's connection: the broker goes by the proven name, whatever id a client claims."""
    site, settings = lab
    known, _ = settings.known_as("cam-02")
    async with served(site, by), connect(settings, "cam-01") as cam:
        await cam.wait_connected(5)
        claim = aiomqtt.Client(
            *(known.host, known.port),
            identifier="cam-01",
            username=known.username,
            password=known.password,
            tls_context=known.tls(),
        )
        with contextlib.suppress(aiomqtt.MqttError):  # Mosquitto gives it its own name, the embedded broker refuses it
            async with claim:
                pass
        await cam.publish(site.config.topics().device_up("cam-01", "packet", "edge-1"), b"still here")
        assert cam.connects == 1


@pytest.mark.parametrize("claim", ["nothing", "another site", "an old key"])
async def test_strangers_stay_out(tmp_path: Path, claim: str, by: By) -> None:
    """Protects a site from whoever has no certificate of its authority for a key of their own."""
    site, other = make_site(tmp_path), make_site(tmp_path, "other")
    settings, theirs = enroll_all(site, tmp_path / "out"), enroll_all(other, tmp_path / "theirs")
    files = {CA: (site.folder / "pki" / CA).read_bytes()}
    if claim != "nothing":
        source = (theirs if claim == "another site" else settings).known_as("cam-01")[0].identity
        assert source is not None
        files |= {name: (source / name).read_bytes() for name in (CERTIFICATE, KEY)}
    if claim == "an old key":
        site.revoke(["cam-01"])
    stranger = Identity(id="cam-01", role="device", site="lab", base="megace2/v1", url=site.config.url)
    write_identity(tmp_path / "stranger" / "cam-01", stranger, files)
    async with served(site, by):
        assert not await gets_in(BrokerSettings(identity=tmp_path / "stranger"))
        assert await gets_in(settings, "cam-02")


async def test_a_new_device_joins_over_the_network(tmp_path: Path) -> None:
    """Protects the way in: one string, typed on the device, and it speaks to its edge."""
    site = make_site(tmp_path)
    enroll_all(site, tmp_path / "out")
    topics = site.config.topics()
    async with served(site), enrolment_service(site):
        text = join_string(site, "cam-09", site.invite(Enrolled(id="cam-09", role="device")))
        folder, identity = await join(text, tmp_path / "joined")
        assert (identity.id, identity.url) == ("cam-09", site.config.url)
        async with connect(BrokerSettings(identity=folder), "cam-09") as cam:
            await cam.wait_connected(5)
            await cam.publish(topics.device_up("cam-09", "packet", "edge-1"), b"hello")
        with pytest.raises(Problem, match="good once"):
            await join(text, tmp_path / "again")


async def test_a_join_string_of_another_site_gives_its_token_away_to_nobody(tmp_path: Path) -> None:
    """Protects the token: whoever answers in the site's place is found out before anything is said."""
    site, impostor = make_site(tmp_path), make_site(tmp_path, "impostor")
    text = join_string(site, "cam-09", site.invite(Enrolled(id="cam-09", role="device")))
    elsewhere = text.replace(str(site.config.enrolment_port), str(impostor.config.enrolment_port))
    async with enrolment_service(impostor):
        with pytest.raises(Problem, match="in its place"):
            await join(elsewhere, tmp_path / "joined")
    with pytest.raises(Problem, match="does not answer"):
        await join(text, tmp_path / "joined")
    with pytest.raises(Problem, match="copy all"):
        await join(text[:40], tmp_path / "joined")


@pytest.mark.parametrize("line", [b"\n", b"GET / HTTP/1.1\r\n\r\n", b'{"want": "everything"}\n', b"x" * 40_000])
async def test_the_enrolment_service_survives_garbage(tmp_path: Path, line: bytes) -> None:
    """Protects the port that anybody may call: an answer or an end, and the next one is served."""
    site = make_site(tmp_path)
    context = ssl.create_default_context(cafile=site.folder / "pki" / CA)
    async with enrolment_service(site), asyncio.timeout(10):
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.config.enrolment_port, ssl=context)
            writer.write(line)
            assert len(await reader.read(1000)) < 1000
            writer.close()
        token = site.invite(Enrolled(id="cam-09", role="device"))
        assert (await join(join_string(site, "cam-09", token), tmp_path / "j"))[1].id == "cam-09"


async def test_what_was_kept_survives_a_restart_and_a_taken_port_is_told(tmp_path: Path, by: By) -> None:
    """Protects a month of operation: retained state is on disk; and a second broker says why it cannot be."""
    site = make_site(tmp_path)
    settings = enroll_all(site, tmp_path / "out")
    topic = site.config.topics().device_up("cam-01", "profile", "edge-1")
    async with served(site, by):
        assert running_pid(site)
        async with connect(settings, "cam-01") as cam:
            await cam.publish(topic, b"kept", retain=True)
        with pytest.raises(BrokerError, match="in use"):
            async with served(site, by):
                pass
    assert running_pid(site) is None
    async with served(site, by), connect(settings, "edge-1") as edge, asyncio.timeout(5):
        assert (await anext(await edge.subscribe(topic))).payload == b"kept"
