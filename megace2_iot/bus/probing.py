"""What a broker can do, found out by trying: with clients of its own, below a topic of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiomqtt

from megace2_iot.bus.opening import open_connection
from megace2_iot.bus.settings import BrokerSettings
from megace2_iot.mqtt import Connection, Delivery, NotPublished

PATIENCE = 3.0  # s for what is to come
SETTLING = 0.5  # s for what is not to come: a second copy, or a share that everybody gets
SMALL = 200  # bytes
PACKET = 98_000  # bytes: a feature packet of the paper
LARGE = 1_000_000  # bytes
SHARED = 10  # messages
TRIAL, TRIES = 12.0, 2  # s for one
AGAIN = 0.5  # s to the next connect: a cluster needs a moment until it lets a client in that has just gone
LACKS: dict[str, str] = {
    "QoS 1": "nothing of this works on it: use another broker",
    "packet of 98 KB": "large feature packets do not pass: raise its limit, or let devices send features",
    "retained": 'late joiners wait for the next repetition: [broker] repeat_retained = "yes"',
    "retained under a wildcard": "tiers find that out and repeat what they retain every [broker] repeat_every s",
    "retained at another node": "tiers repeat what they retain every [broker] repeat_every s: leave repeat_retained",
    "session": "what comes while a node is away is lost here; devices and edges send again what matters",
    "session at another node": "after the death of a broker's node its sessions are lost; what matters is sent again",
    "will": "a dead node is taken for alive until it comes back",
}  # and what follows; what is not here matters to nobody of ours


@dataclass(frozen=True, slots=True)
class Finding:
    """One ability: there or not, or None where it was not found out; `found` in words."""

    name: str
    able: bool | None
    found: str

    @property
    def advice(self) -> str:
        return LACKS.get(self.name, "") if self.able is False else ""


class _Client:
    """One connection, and what came over it."""

    def __init__(self) -> None:
        self.heard: list[Delivery] = []
        self._news = asyncio.Event()

    async def connect(self, settings: BrokerSettings, node: str, will: aiomqtt.Will | None) -> None:
        for again in (AGAIN, AGAIN, None):
            try:
                self.connection, self.protocol = await open_connection(
                    settings, node, will, self._take, settings.protocol
                )
                return
            except aiomqtt.MqttError:
                if again is None:
                    raise
                await asyncio.sleep(again)

    def _take(self, connection: Connection, delivery: Delivery) -> None:
        connection.acknowledge(delivery)
        self.heard.append(delivery)
        self._news.set()

    async def hears(self, wanted: Callable[[Delivery], bool], seconds: float = PATIENCE) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not any(map(wanted, self.heard)):
                    self._news.clear()
                    await self._news.wait()
                return True
        return False


Trial = Callable[[], Awaitable[list[Finding]]]


class Prober:
    """Tries a broker at its first address, and where it has more, what the second one knows of the first.

    Everything is below `root`; what is retained there is cleared again.
    """

    def __init__(self, settings: BrokerSettings, root: str) -> None:
        self._settings, self._root = settings, root
        self._id = f"probe-{secrets.token_hex(3)}"
        self._clients = itertools.count()

    async def probe(self) -> list[Finding]:
        """All of it, within a few seconds; raises what aiomqtt raises where the broker cannot be reached."""
        trials: dict[str, Trial] = {
            "packet of 98 KB": lambda: self._echo("packet of 98 KB", PACKET),
            "packet of 1 MB": lambda: self._echo("packet of 1 MB", LARGE),
            "retained": self._retained,
            "shared subscriptions": self._shared,
            "overlapping filters": self._overlap,
            "session": self._session,
            "will": self._will,
        }
        if self._settings.clustered:
            trials |= {
                "retained at another node": self._retained_elsewhere,
                "session at another node": self._session_elsewhere,
            }
        findings = [*await self._greeting(), *await self._try("QoS 1", lambda: self._echo("QoS 1", SMALL))]
        async with asyncio.TaskGroup() as tasks:
            tried = [tasks.create_task(self._try(name, trial), name=name) for name, trial in trials.items()]
        return findings + [finding for task in tried for finding in task.result()]

    async def _try(self, name: str, trial: Trial) -> list[Finding]:
        """What fails is tried once more, when the others are over: together they may be too much for a cluster."""
        failure: Exception | None = None
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(TRIAL):
                    return await trial()
            except (aiomqtt.MqttError, NotPublished, OSError, TimeoutError) as error:
                failure = error
        return [Finding(name, False, f"failed: {failure or type(failure).__name__}")]

    # -- one trial each -----------------------------------------------------------------
    async def _greeting(self) -> list[Finding]:
        async with self._client() as client:
            limit = client.connection.max_packet_size
            five = client.protocol == "5"
            return [
                Finding("MQTT 5", five, "spoken" if five else "not spoken: 3.1.1 is"),
                Finding("announced limit", None, f"{limit:,} bytes" if limit else "none"),
            ]

    async def _echo(self, name: str, size: int) -> list[Finding]:
        topic = f"{self._root}/echo/{size}"
        async with self._client() as client:
            await client.connection.listen([(topic, 1)])
            began = time.monotonic()
            await self._say(client, topic, bytes(size))
            there = await client.hears(lambda d: d.topic == topic)
            took = time.monotonic() - began
        return [Finding(name, there, f"{took * 1e3:.0f} ms" if there else "did not come back")]

    async def _retained(self) -> list[Finding]:
        async with self._kept("one") as topic, self._client() as reader:
            exact = await self._is_kept(reader, topic)
            wild = await self._is_kept(reader, f"{topic.rpartition('/')[0]}/+")
        return [
            Finding("retained", exact, "yes" if exact else "not delivered"),
            Finding("retained under a wildcard", wild, "yes" if wild else "not delivered"),
        ]

    async def _retained_elsewhere(self) -> list[Finding]:
        async with self._kept("elsewhere") as topic, self._client(at=1) as reader:
            at_once = await self._is_kept(reader, topic)
            there = at_once or await self._is_kept(reader, topic)  # nodes of NATS tell each other in their own time
        return [Finding("retained at another node", there, "yes" if at_once else "late" if there else "not delivered")]

    @contextlib.asynccontextmanager
    async def _kept(self, name: str) -> AsyncIterator[str]:
        """A topic with a retained message while the block runs."""
        topic = f"{self._root}/{name}/kept"
        async with self._client() as speaker:
            await self._say(speaker, topic, b"kept", retain=True)
            try:
                yield topic
            finally:
                await self._say(speaker, topic, b"", retain=True)

    async def _is_kept(self, reader: _Client, topic_filter: str) -> bool:
        reader.heard.clear()
        await reader.connection.listen([(topic_filter, 1)])
        return await reader.hears(lambda d: d.retained and d.payload == b"kept")

    async def _shared(self) -> list[Finding]:
        topic = f"{self._root}/shared"
        async with self._client() as one, self._client() as two, self._client() as speaker:
            for reader in (one, two):
                await reader.connection.listen([(f"$share/probe/{topic}", 1)])
            for number in range(SHARED):
                await self._say(speaker, topic, b"%d" % number)
            await asyncio.sleep(SETTLING)
            heard = len(one.heard), len(two.heard)
        split = sum(heard) == SHARED and min(heard) > 0
        return [Finding("shared subscriptions", split, f"{heard[0]} and {heard[1]} of {SHARED}")]

    async def _overlap(self) -> list[Finding]:
        topic = f"{self._root}/overlap/one"
        async with self._client() as client:
            await client.connection.listen([(topic, 1), (f"{self._root}/overlap/+", 1)])
            await self._say(client, topic, b"once")
            there = await client.hears(lambda d: d.topic == topic)
            await asyncio.sleep(SETTLING)
        copies = len(client.heard)
        return [Finding("overlapping filters", there, f"{copies} cop{'y' if copies == 1 else 'ies'}")]

    async def _will(self) -> list[Finding]:
        topic = f"{self._root}/will"
        async with self._client() as witness:
            await witness.connection.listen([(topic, 1)])
            async with self._client("will", will=aiomqtt.Will(topic, b"gone", 1, False), gracefully=False):
                pass
            told = await witness.hears(lambda d: d.topic == topic)
        await self._forget("will")
        return [Finding("will", told, "published" if told else "not published")]

    async def _session(self) -> list[Finding]:
        kept = await self._keeps_session(back_at=0)
        return [Finding("session", kept, "survives a reconnect" if kept else "lost at a reconnect")]

    async def _session_elsewhere(self) -> list[Finding]:
        kept = await self._keeps_session(back_at=1)
        return [Finding("session at another node", kept, "survives" if kept else "lost")]

    async def _keeps_session(self, back_at: int) -> bool:
        topic = f"{self._root}/session/{back_at}"
        name, will = f"s{back_at}", aiomqtt.Will(f"{self._root}/unread", b"", 0, False)
        async with self._client(name, will=will) as reader:
            await reader.connection.listen([(topic, 1)])
        async with self._client() as speaker:
            await self._say(speaker, topic, b"while away")
        async with self._client(name, will=will, at=back_at) as reader:
            there = await reader.hears(lambda d: d.topic == topic)
            with contextlib.suppress(aiomqtt.MqttError):
                await reader.connection.unsubscribe(topic)
        await self._forget(name, at=back_at)
        return there

    async def _forget(self, name: str, at: int = 0) -> None:
        """Have the broker forget a session, by one that ends with its connection."""
        async with self._client(name, at=at):
            pass

    # -- what they share ----------------------------------------------------------------
    async def _say(self, client: _Client, topic: str, payload: bytes, *, retain: bool = False) -> None:
        async with asyncio.timeout(2 * PATIENCE):
            await client.connection.send(topic, payload, qos=1, retain=retain)

    @contextlib.asynccontextmanager
    async def _client(
        self, name: str = "", *, will: aiomqtt.Will | None = None, at: int = 0, gracefully: bool = True
    ) -> AsyncIterator[_Client]:
        """A client of this name, or of one that no other has; with a `will` the broker keeps its session."""
        client = _Client()
        node = f"{self._id}-{name or next(self._clients)}"
        await client.connect(self._settings.at(at), node, will)
        losing = asyncio.create_task(client.connection.lost(), name=node)
        try:
            yield client
        finally:
            losing.cancel()
            await asyncio.wait([losing])
            await client.connection.leave(gracefully=gracefully)


async def probe(settings: BrokerSettings, root: str) -> list[Finding]:
    """What a broker can do, tried below the topic `root`."""
    return await Prober(settings, f"{root}/{secrets.token_hex(3)}").probe()
