"""An enrolled site as a whole: every tier over TLS under its own name, and nothing believed that is not signed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="a site needs the extra `secure`")
from sites import enroll_all, make_site
from tiers import Lab, command, corpus, free_port, played, process, running, until

from broker.lab import eviction
from broker.lab.access_list import KEEPER
from broker.lab.registry import Enrolled
from broker.lab.running import site_mosquitto
from broker.lab.site import Site
from broker.mosquitto_process import find_mosquitto
from megace2_iot.bus import connect
from megace2_iot.messages import ModelPointer, Prediction
from megace2_iot.signing import MAGIC, Signer

if find_mosquitto() is None and not os.environ.get("CI"):
    pytest.skip("mosquitto is not installed (apt install mosquitto)", allow_module_level=True)


@pytest.fixture
def enrolled(tmp_path: Path, make_lab: Callable[[str], Lab]) -> tuple[Site, Lab]:
    """A site with everybody in it, an ear, and mallory, who may write whatever an insider could."""
    site, out = make_site(tmp_path), tmp_path / "out"
    enroll_all(site, out)
    everything = site.config.topics().everything()
    site.enroll(Enrolled(id="ear", role="operator"), out)
    site.enroll(Enrolled(id="mallory", role="operator", write=(everything,)), out)
    return site, replace(make_lab(site.config.url), topics=site.config.topics(), identities=out)


async def test_devices_are_answered_and_what_decides_is_signed(enrolled: tuple[Site, Lab]) -> None:
    """Protects the loop of a real lab: TLS, access lists and signatures, and every window has its answer."""
    site, lab = enrolled
    topics = lab.topics
    async with site_mosquitto(site), running(lab.cloud(), lab.edge()), lab.listening() as ear:
        await lab.device("cam-01").run(played(corpus(12)))
        answers = [answer for answer in ear.of(Prediction, "cam-01") if answer.status == "answered"]
        assert len({answer.seq for answer in answers}) == len(corpus(12))
        captured = await raw(site, topics.device_down("cam-01", "config", "edge-1"), topics.cloud_all("model"))
    assert all(payload.startswith(MAGIC) for payload in captured)


async def raw(site: Site, *retained: str) -> list[bytes]:
    """Retained messages as they lie at the broker."""
    async with eviction._connection(site, KEEPER, "keeper") as client, asyncio.timeout(5):
        for topic in retained:
            await client.subscribe(topic)
        return [bytes((await anext(aiter(client.messages))).payload) for _ in retained]


async def test_an_insider_cannot_play_the_cloud(enrolled: tuple[Site, Lab]) -> None:
    """Protects the model: a pointer with no signature, or another's, is counted and changes nothing."""
    site, lab = enrolled
    forged = lab.topics.cloud_all("model")
    async with site_mosquitto(site), running(lab.cloud(), lab.edge()), lab.listening() as ear:
        await until(lambda: ear.of(ModelPointer, "edge-1"))
        true = ear.of(ModelPointer, "cloud")[-1]
        false = true.model_copy(update={"version": 99, "sha256": "0" * 64}).encode()
        async with connect(lab.broker, "mallory") as mallory:
            await mallory.wait_connected(5)
            signed = Signer(lab.identities / "mallory").sign(forged, false) if lab.identities else b""
            assert signed.startswith(MAGIC)
            for payload in (false, signed):
                await mallory._connection.send(forged, payload, qos=1, retain=True)  # type: ignore[union-attr]
        await until(lambda: ear.figures("edge-1").counters["messages_forged"] >= 2)
        await lab.device("cam-01").run(played(corpus(6)))
        assert {answer.version for answer in ear.of(Prediction, "cam-01")} == {true.version}


async def test_a_lab_from_nothing_by_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the words of docs/lab.md: set up, admit, run, look, revoke, stop."""
    monkeypatch.chdir(tmp_path)
    port, joins = str(free_port()), str(free_port())
    place = ("--host", "127.0.0.1", "--bind", "127.0.0.1", "--port", port, "--enrolment-port", joins)
    assert (await command("broker", "init", *place))[0] == 0
    assert "enrolled as cloud" in (await command("enroll", "cloud"))[1]
    assert "start it" not in (await command("enroll", "edge-1", "--role", "edge"))[1]
    assert (await command("enroll", "sim-01", "sim-02", "--edge", "edge-1"))[0] == 0
    assert (await command("enroll", "ann", "--role", "operator"))[0] == 0
    async with process("broker", "up") as broker:
        await until(lambda: any("mqtts://" in line for line in broker.said))
        tiers = [("cloud", "--identity", "identities/cloud"), ("edge", "--identity", "identities/edge-1")]
        async with process(*tiers[0]), process(*tiers[1]):
            play = ("replay", "synthetic", "--devices", "2", "--prefix", "sim", "--no-train", "--speed", "0")
            status, said = await command(*play, "--identity", "identities", "--edge", "edge-1", seconds=60)
            assert status == 0, said
            _, said = await command("status", "--json", "--identity", "identities/ann")
            assert {node["id"]: node["state"] for node in json.loads(said)["nodes"]} == {
                "cloud": "online",
                "edge-1": "online",
                "sim-01": "stopped",
                "sim-02": "stopped",
            }
            assert "edge-1 is shut out" in (await command("revoke", "edge-1"))[1]
            _, said = await command("status", "--json", "--identity", "identities/ann")
            assert {"edge-1": "offline"}.items() <= {n["id"]: n["state"] for n in json.loads(said)["nodes"]}.items()
        _, said = await command("broker", "list")
        assert max(map(len, said.splitlines())) <= 80
        broker.send_signal(signal.SIGINT)
        assert await broker.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("status", "--broker", "mqtt://10.0.0.9"), "--insecure"),
        (("device", "--broker", "mqtt://10.0.0.9"), "--insecure"),
        (("broker", "--host", "0.0.0.0"), "--insecure"),
        (("edge", "--identity", "nowhere"), "megace2 enroll"),
        (("enroll", "cam-01"), "broker init"),
        (("broker", "up", "--dir", "nowhere"), "broker init"),
        (("join", "mqtt://10.0.0.9"), "copy all"),
        (("broker", "init", "--site", "My Lab"), "no site"),
    ],
)
async def test_a_mistake_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], advice: str
) -> None:
    """Protects who types: what to do is said, without a traceback."""
    monkeypatch.chdir(tmp_path)
    status, said = await command(*arguments)
    assert status == 1
    assert advice in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
