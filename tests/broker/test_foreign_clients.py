"""Clients that others wrote, against the embedded broker: mosquitto_pub and mosquitto_sub, paho, aiomqtt, MQTT.js."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from absent import program, skip_or_fail
from paho.mqtt import publish, subscribe
from paho.mqtt.client import MQTTv5, MQTTv311
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from pki import Authority, password_line
from wire import Wire

from broker import AccessFiles, EmbeddedBroker, EmbeddedSettings, Listener, TlsSettings, embedded_broker

MQTTJS = Path(__file__).parents[2] / ".venv" / "mqttjs" / "node_modules" / "mqtt"
SCRIPT = """
const mqtt = require(process.argv[1]);
const [url, version] = process.argv.slice(2);
const client = mqtt.connect(url, {protocolVersion: +version, clientId: 'js', properties: +version === 5 ?
    {sessionExpiryInterval: 60} : undefined, autoUseTopicAlias: +version === 5,
    will: {topic: 'js/gone', payload: 'gone', qos: 1, retain: true}});
const seen = [];
client.on('error', error => { console.error(error); process.exit(1); });
client.on('message', (topic, payload, packet) => {
  seen.push([topic, payload.length, packet.qos, packet.properties?.userProperties?.k ?? null,
             packet.properties?.responseTopic ?? null]);
  if (seen.length === 6) { console.log(JSON.stringify(seen)); client.stream.destroy(); process.exit(0); }
});
client.on('connect', async () => {
  await client.subscribeAsync('js/data', {qos: 2});
  const properties = +version === 5 ? {userProperties: {k: 'v'}, responseTopic: 'js/answer'} : undefined;
  for (const qos of [0, 1, 2]) await client.publishAsync('js/data', Buffer.alloc(100), {qos, properties});
  for (const qos of [0, 1, 2]) await client.publishAsync('js/data', Buffer.alloc(100000), {qos, properties});
});
"""


async def run(name: str, *arguments: object) -> str:
    """What the program prints, once it has ended well."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program(name, "mosquitto-clients"), *map(str, arguments), stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(20):
        told, wrong = await process.communicate()
    assert process.returncode == 0, wrong.decode()
    return told.decode()


async def subscribed(broker: EmbeddedBroker, count: int) -> None:
    async with asyncio.timeout(10):
        while broker.stats().subscriptions < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("version", ["311", "5"])
async def test_mosquittos_own_clients_get_every_message(version: str) -> None:
    """Protects the commands that a lab types first: each QoS, lines of a file, a retained one for who comes late."""
    async with embedded_broker() as broker:
        common = ("-p", broker.port, "-V", version, "-t", "a/b")
        reading = asyncio.create_task(run("mosquitto_sub", *common, "-q", 2, "-C", 4, "-W", 15, "-F", "%q %r %p"))
        await subscribed(broker, 1)
        for qos in (0, 1, 2):
            await run("mosquitto_pub", *common, "-q", qos, "-m", f"message {qos}")
        await run("mosquitto_pub", *common, "-q", 1, "-r", "-m", "kept")
        lines = (await reading).splitlines()  # one of QoS 2 is printed at its end, perhaps after the next
        assert sorted(lines) == ["0 0 message 0", "1 0 kept", "1 0 message 1", "2 0 message 2"]
        assert await run("mosquitto_sub", *common, "-C", 1, "-W", 15, "-F", "%r %p") == "1 kept\n"


async def test_mosquittos_clients_use_what_mqtt_5_adds() -> None:
    """Protects properties, expiry and shared subscriptions through an independent implementation of them."""
    async with embedded_broker() as broker:
        common = ("-p", broker.port, "-V", 5)
        told = ("-D", "publish", "user-property", "k", "v", "-D", "publish", "content-type", "text", "-D", "publish")
        asked = ("-C", 1, "-W", 15, "-F", "%P %C %R %E %p")
        reading = asyncio.create_task(run("mosquitto_sub", *common, "-t", "$share/g/t", "-q", 1, *asked))
        await subscribed(broker, 1)
        expiry = ("-D", "publish", "message-expiry-interval", 100)
        await run("mosquitto_pub", *common, "-t", "t", "-q", 1, "-m", "x", *told, "response-topic", "r", *expiry)
        assert await reading == "k:v text r 100 x\n"


async def test_mosquittos_clients_come_over_tls_with_a_password(tmp_path: Path) -> None:
    """Protects the whole way in: TLS, a client's certificate, a user of a password file."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("client")
    (tmp_path / "users").write_text(password_line("edge", "pw"))
    tls = TlsSettings(*authority.issue("broker"), ca=authority.certificate, require_certificate=True)
    settings = EmbeddedSettings(tls=tls, access_files=AccessFiles(users=tmp_path / "users"))
    async with embedded_broker(settings) as broker:
        common = ("-h", "localhost", "-p", broker.port, "--cafile", authority.certificate, "-t", "t")
        common = (*common, "--cert", certificate, "--key", key, "-u", "edge")
        await run("mosquitto_pub", *common, "-P", "pw", "-r", "-q", 2, "-m", "x")
        assert await run("mosquitto_sub", *common, "-P", "pw", "-C", 1, "-W", 15) == "x\n"
        with pytest.raises(AssertionError, match="bad user name or password"):
            await run("mosquitto_pub", *common, "-P", "wrong", "-m", "x")


@pytest.mark.parametrize("protocol", [MQTTv311, MQTTv5])
@pytest.mark.parametrize("transport", ["tcp", "websockets"])
async def test_pahos_helpers_send_and_receive(protocol: Any, transport: str) -> None:
    """Protects the oldest Python client, over both transports: several messages in one go, and the retained ones."""
    settings = EmbeddedSettings(listeners=(Listener(websocket=True),))
    async with embedded_broker(settings) as broker:
        where = {"port": int(broker.urls[transport == "websockets"].rpartition(":")[2]), "transport": transport}
        messages = [{"topic": f"p/{qos}", "payload": bytes(70_000), "qos": qos, "retain": True} for qos in (0, 1, 2)]
        await asyncio.to_thread(publish.multiple, messages, "127.0.0.1", protocol=protocol, **where)
        async with asyncio.timeout(20):
            got = await asyncio.to_thread(subscribe.simple, "p/+", 2, 3, True, "127.0.0.1", protocol=protocol, **where)
        assert sorted((m.topic, len(m.payload), m.qos, m.retain) for m in got) == [
            (f"p/{qos}", 70_000, qos, True) for qos in (0, 1, 2)
        ]


@pytest.mark.parametrize("protocol", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
async def test_aiomqtt_keeps_a_session_over_a_reconnect(protocol: aiomqtt.ProtocolVersion) -> None:
    """Protects our own system's client: QoS 2 both ways, and what came while it was away."""
    lasting: dict[str, Any] = {"clean_session": False}
    if protocol is aiomqtt.ProtocolVersion.V5:
        lasting = {"clean_start": False, "properties": PahoProperties(PacketTypes.CONNECT)}
        lasting["properties"].SessionExpiryInterval = 60
    async with embedded_broker() as broker, aiomqtt.Client("127.0.0.1", broker.port, protocol=protocol) as out:
        for first in (True, False):
            client = aiomqtt.Client("127.0.0.1", broker.port, identifier="in", protocol=protocol, **lasting)
            async with client as reader, asyncio.timeout(10):
                if first:
                    await reader.subscribe("t", qos=2)
                await out.publish("t", f"live {first}", qos=2)
                seen = [(await anext(reader.messages)).payload for _ in range(1 if first else 2)]
            await out.publish("t", b"away", qos=2)
        assert seen == [b"away", b"live False"]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("scheme", ["mqtt", "ws"])
async def test_mqttjs_sends_receives_and_leaves_its_will(version: int, scheme: str) -> None:
    """Protects browsers and Node-RED: each QoS, large payloads, its aliases, properties, the will.

    It allows the broker no aliases: MQTT.js 5.16 loses the topic of a QoS 2 message that comes by one.
    """
    node = program("node", "npm")
    if not MQTTJS.is_dir():
        skip_or_fail("MQTT.js is missing (sh deploy/get-mqttjs.sh)")
    settings = EmbeddedSettings(listeners=(Listener(websocket=True),))
    async with embedded_broker(settings) as broker:
        url = next(url for url in broker.urls if url.startswith(scheme))
        seen = json.loads(await run(node, "-e", SCRIPT, MQTTJS, url, version))
        properties = ["v", "js/answer"] if version == 5 else [None, None]
        expected = [["js/data", size, qos, *properties] for size in (100, 100_000) for qos in (0, 1, 2)]
        assert sorted(seen, key=str) == sorted(expected, key=str)  # QoS 2 may be told of after the next message
        async with Wire(broker.port, "watcher") as watcher:
            await watcher.subscribe(("js/gone", 1))
            assert (await watcher.receive()).payload == b"gone"
