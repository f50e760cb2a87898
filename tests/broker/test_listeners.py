"""TLS and WebSocket: who is let in, by which name, what a reload changes; and frames that a stranger may send."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from pki import Authority
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from wire import Wire, wire5

from broker import AccessFiles, BrokerError, EmbeddedSettings, Listener, TlsSettings, embedded_broker
from broker.codec import encode
from broker.packets import Connack, Connect, Disconnect, Pingreq, Pingresp, Publish, Suback, Subscribe
from broker.reasons import Reason


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls_of(authority: Authority, **fields: Any) -> TlsSettings:
    return TlsSettings(*authority.issue("broker"), ca=authority.certificate, **fields)


async def test_one_broker_listens_in_four_ways(authority: Authority) -> None:
    """Protects a lab of different clients: what is published over one listener is read over all others."""
    tls = tls_of(authority)
    more = (Listener(tls=tls), Listener(websocket=True), Listener(tls=tls, websocket=True))
    async with embedded_broker(EmbeddedSettings(listeners=more)) as broker:
        assert [url.partition(":")[0] for url in broker.urls] == ["mqtt", "mqtts", "ws", "wss"]
        secure = authority.client()
        secure.check_hostname = False
        seen = []
        async with asyncio.timeout(10):
            for url in broker.urls:
                options = {"transport": "websockets"} if url.startswith("ws") else {}
                port = int(url.rpartition(":")[2])
                async with aiomqtt.Client(
                    "127.0.0.1", port, tls_context=secure if url.startswith(("mqtts", "wss")) else None, **options
                ) as client:
                    await client.subscribe("t", qos=2)
                    await client.publish("t", bytes(200_000), qos=2)
                    seen.append(len((await anext(client.messages)).payload))
        assert seen == [200_000] * 4


async def test_a_certificate_may_be_required(authority: Authority) -> None:
    """Protects a site's broker: nobody without a certificate of its authority gets as far as CONNECT."""
    settings = EmbeddedSettings(tls=tls_of(authority, require_certificate=True))
    (authority.folder / "other").mkdir()
    stranger = Authority(authority.folder / "other")
    async with embedded_broker(settings) as broker:
        wrong = ssl.create_default_context(cafile=authority.certificate)
        wrong.load_cert_chain(*stranger.issue("spy"))
        for context in (authority.client(), wrong):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with Wire(broker.port, "spy", tls=context):
                    pass
        async with Wire(broker.port, "dev", tls=authority.client("dev")) as device:
            await device.publish("t", b"x")


async def test_a_client_is_who_its_certificate_says(authority: Authority) -> None:
    """Protects identities: the common name is the user name, whatever CONNECT says, and the client id must agree."""
    tls = tls_of(authority, require_certificate=True, identity_as_username=True)
    acl = authority.folder / "acl"
    acl.write_text("pattern readwrite up/%u/#\n")
    files = AccessFiles(acl=acl, username_is_client_id=True)
    async with embedded_broker(EmbeddedSettings(tls=tls, access_files=files)) as broker:
        context = authority.client("cam-01")
        async with Wire(broker.port, "cam-01", level=5, tls=context, username="cam-02") as camera:
            assert await camera.publish("up/cam-01/x") == Reason.NO_MATCHING_SUBSCRIBERS
            assert await camera.publish("up/cam-02/x") == Reason.NOT_AUTHORIZED
        async with Wire(broker.port, "", level=5, tls=context) as camera:
            assert camera.connack.properties.assigned_client_id == "cam-01"
        async with wire5(broker.port, "cam-02", tls=context) as other:
            assert other.connack.return_code == Reason.NOT_AUTHORIZED


async def test_a_revoked_certificate_is_shown_out(authority: Authority) -> None:
    """Protects a site after a theft: a reload ends the live connection, and the next handshake fails; others stay."""
    tls = tls_of(authority, require_certificate=True, crl=authority.crl, identity_as_username=True)
    contexts = {name: authority.client(name) for name in ("good", "bad")}
    async with (
        embedded_broker(EmbeddedSettings(tls=tls)) as broker,
        Wire(broker.port, "good", level=5, tls=contexts["good"]) as good,
        Wire(broker.port, "bad", level=5, tls=contexts["bad"]) as bad,
    ):
        authority.revoke("bad")
        await broker.reload()
        assert (await bad.expect(Disconnect)).reason == Reason.NOT_AUTHORIZED
        assert await bad.is_closed()
        await good.publish("t", b"x")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with Wire(broker.port, "bad", tls=contexts["bad"]):
                pass
        async with Wire(broker.port, "good-2", tls=contexts["good"]):
            assert broker.stats().ended == {"revoked": 1}


async def test_a_new_certificate_is_served_without_a_gap(authority: Authority) -> None:
    """Protects renewal: old connections live on, new ones see the new certificate; a broken file changes nothing."""
    tls = tls_of(authority)
    async with embedded_broker(EmbeddedSettings(tls=tls)) as broker, wire5(broker.port, tls=authority.client()) as old:

        async def served() -> dict[str, Any]:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", broker.port, ssl=authority.client(), server_hostname="localhost"
            )
            writer.close()
            await writer.wait_closed()
            return writer.get_extra_info("peercert")

        before = await served()
        authority.issue("broker")
        await broker.reload()
        assert (await served())["serialNumber"] != before["serialNumber"]
        tls.key.write_text("broken")
        with pytest.raises(BrokerError, match=r"broker\.key"):
            await broker.reload()
        await served()
        await old.publish("t", b"x")


async def test_files_that_are_missing_are_named() -> None:
    """Protects the first start with TLS: which file, and that a CRL or a client's certificate needs an authority."""
    with pytest.raises(BrokerError, match="ca"):
        TlsSettings(Path("x.crt"), Path("x.key"), require_certificate=True)
    with pytest.raises(BrokerError, match=r"x\.crt"):
        async with embedded_broker(EmbeddedSettings(tls=TlsSettings(Path("x.crt"), Path("x.key")))):
            pass


def over_websocket(url: str) -> Any:
    return websocket(url, subprotocols=["mqtt"], compression=None)


async def answer(client: ClientConnection) -> bytes:
    async with asyncio.timeout(5):
        return await client.recv(decode=False)


async def test_packets_and_frames_need_not_agree() -> None:
    """Protects MQTT-6.0.0-4: a packet over several frames and messages, several packets in one."""
    async with embedded_broker(EmbeddedSettings(websocket=True)) as broker, over_websocket(broker.url) as client:
        assert client.subprotocol == "mqtt"
        data = encode(Connect("dev")) + encode(Subscribe(1, (("t", 0),))) + encode(Publish("t", b"x"))
        await client.send([data[:1], data[1:9]])
        await client.send(data[9:])
        got = b""
        while len(got) < 4 + 5 + 6:
            got += await answer(client)
        assert got == encode(Connack()) + encode(Suback(1, (0,))) + encode(Publish("t", b"x"))
        await client.ping()
        await client.send(encode(Pingreq()))
        assert await answer(client) == encode(Pingresp())
        await client.send(encode(Disconnect()))
        await client.wait_closed()
        assert (client.close_code, broker.stats().ended) == (1000, {"disconnect": 1})


@pytest.mark.parametrize("kind", ["text", "oversize", "not MQTT"])
async def test_a_wrong_message_closes_a_websocket(kind: str) -> None:
    """Protects the listener: text, a frame over the limit, and bytes that are not MQTT end their own connection."""
    message = {"text": "hello", "oversize": bytes(200_000), "not MQTT": b"\x00"}[kind]
    settings = EmbeddedSettings(websocket=True, max_packet_size=1000)
    async with embedded_broker(settings) as broker, over_websocket(broker.url) as client:
        await client.send(message)
        with pytest.raises(ConnectionClosed):
            await answer(client)


async def test_what_is_no_websocket_is_refused() -> None:
    """Protects a user who took the wrong port, and the connection limit from clients that never shake hands."""
    settings = EmbeddedSettings(websocket=True, connect_deadline=0.5)
    async with embedded_broker(settings) as broker:
        with pytest.raises(InvalidStatus):
            await websocket(broker.url, subprotocols=["chat"])
        for data in (b"", encode(Connect("dev")), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
            writer.write(data)
            async with asyncio.timeout(5):
                assert b"mqtt" not in await reader.read()
            writer.close()


async def test_a_full_subscriber_slows_a_websocket_too() -> None:
    """Protects back-pressure behind the framing: what came while nothing was read is not lost."""
    settings = EmbeddedSettings(
        listeners=(Listener(websocket=True),), max_queued_bytes=50_000, max_withheld_bytes=20_000
    )
    async with (
        embedded_broker(settings) as broker,
        Wire(broker.port, "slow") as slow,
        over_websocket(broker.urls[1]) as out,
    ):
        await slow.subscribe(("t", 1))
        await out.send(encode(Connect("out")))
        await answer(out)
        await out.send(b"".join(encode(Publish("t", b"%03d" % n + bytes(5000), 1, packet_id=n)) for n in range(1, 101)))
        assert [payload[:3] for payload in await slow.payloads(100)] == [b"%03d" % n for n in range(1, 101)]
        got = b""
        while len(got) < 400:
            got += await answer(out)
        assert broker.stats().dropped == {}


async def test_an_unfinished_handshake_is_ended(authority: Authority) -> None:
    """Protects the listener from sockets that speak TLS to nobody's end."""
    async with embedded_broker(EmbeddedSettings(tls=tls_of(authority), connect_deadline=0.3)) as broker:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        writer.write(b"\x16\x03\x01")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
