"""The reconnecting MQTT session of one node.

`connect()` holds one connection at a time and makes a new one, with new client state, whenever it is lost. After each
connect it renews the subscriptions, then publishes the birth (`State` online) and every retained message it keeps:
a broker may come back with nothing. Subscriptions live as long as the session and have bounded inboxes: a message is
acknowledged when its reader takes it, so a slow reader slows the broker down (QoS 1); what finds an inbox full is
dropped and counted. Where the broker does not give retained messages to whoever subscribes, `Retained` publishes them
again. Of several addresses the next one is tried where one fails. Publishing fails with `LinkLost` when the link ends
first: who needs delivery keeps the message and sends again, since the broker is never trusted with the only copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator

import aiomqtt
from aiomqtt.exceptions import MqttConnectError

from megace2_iot import mqtt
from megace2_iot.bus.opening import first_of, open_connection, why_not
from megace2_iot.bus.retained import Retained
from megace2_iot.bus.settings import BrokerSettings, Presence
from megace2_iot.bus.subscription import Subscription
from megace2_iot.codec import DecodeError
from megace2_iot.mqtt import Connection, Delivery, LinkLost, NotPublished, Refused
from megace2_iot.problems import Problem
from megace2_iot.signing import Seal
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Address, is_upward, matches

_log = logging.getLogger("megace2.bus")
FIRST_RETRY, LAST_RETRY = 0.25, 30.0  # s, full jitter between
FLAPPING_RETRY = 2.0  # s; the longest pause after a connection that came up: the broker is there, the link is bad
BULK_WINDOW = 4  # unconfirmed chunks of 64 KiB: at 20 Mbit/s a feature packet waits 0.1 s behind them
CONFIRMING = 30.0  # s for a cluster to confirm a message; a single broker may withhold its word, so that we wait
QUICK = 2.0  # s; a link that lives no longer was probably taken over by another node of the same id
ASKED = 3  # times for a subscription that a cluster refuses: NATS that misses a server refuses a third of the new ones
ROUTES = 4096  # topics whose subscriptions are remembered


class BusError(Problem):
    """The session cannot go on: a duplicate node id, or no broker where one is required now."""


class Bus:
    """One node's session; made by `connect`."""

    def __init__(
        self, settings: BrokerSettings, node: str, presence: Presence | None, telemetry: Telemetry | None
    ) -> None:
        self.settings, identity = settings.known_as(node)
        self.node = identity.id if identity and identity.role == "operator" else node
        self._seal = Seal(self.settings.identity, identity) if self.settings.identity and identity else None
        self.telemetry = telemetry or Telemetry()
        self.session = 0
        self.round_trip = 0.0  # s of a small message to the broker and back, at the last connect; 0 where unknown
        self._bulk = asyncio.Semaphore(BULK_WINDOW)
        self._presence = presence
        self._protocol = settings.protocol
        self._at = first_of(self.settings, node)  # which of its addresses
        self._retained = Retained(self.settings, presence)
        self._subscriptions: list[Subscription] = []
        self._routes: dict[str, tuple[list[Subscription], Address | None]] = {}  # and who must have signed
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._connects = 0
        self._up_since = 0.0
        self._quick_losses = 0
        self._connected_once_more = asyncio.Condition()

    # -- for its users ----------------------------------------------------------------
    @property
    def connected(self) -> bool:
        return self._up.is_set()

    @property
    def connects(self) -> int:
        """How often a connection was made; grows by one at each reconnect."""
        return self._connects

    @property
    def max_packet_size(self) -> int | None:
        """Bytes of the largest message that the broker announced, where it announced one (MQTT 5)."""
        return self._connection.max_packet_size if self._connection else None

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait for the link; raises `BusError` saying what to check when it is not up after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
        except TimeoutError:
            raise BusError(
                f"no MQTT broker answers at {self.settings.url}: start one with 'megace2 broker', or name yours "
                "with --broker mqtt://host:port"
            ) from None

    async def reconnected(self, since: int) -> int:
        """Wait until more than `since` connections were made; returns how many."""
        async with self._connected_once_more:
            await self._connected_once_more.wait_for(lambda: self._connects > since)
        return self._connects

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish once; waits for the link, then raises `LinkLost` if it ends first, `Refused` if it is forbidden."""
        await self._up.wait()
        connection = self._connection
        if connection is None:
            raise LinkLost("not connected")
        if self._seal is not None:
            payload = self._seal.outgoing(topic, payload)
        try:
            await connection.send(topic, payload, qos=qos, retain=retain)
        except Refused as error:
            self.telemetry.count("messages_refused")
            _log.warning("%s", error)
            raise
        self.telemetry.count("messages_up" if is_upward(topic) else "messages_down")
        self.telemetry.count("bytes_up" if is_upward(topic) else "bytes_down", len(payload))

    async def publish_bulk(self, topic: str, payload: bytes) -> None:
        """Publish in the lowest send class: at most `BULK_WINDOW` such messages of this node are on their way."""
        async with self._bulk:
            await self.publish(topic, payload)

    async def keep(self, topic: str, payload: bytes) -> None:
        """Publish a retained message now and after every connect; an empty payload clears it."""
        if self._seal is not None:
            payload = self._seal.outgoing(topic, payload)
        self._retained.put(topic, payload)
        if self._connection is not None:
            with contextlib.suppress(NotPublished):  # the next connect publishes it
                await self._connection.send(topic, payload, qos=1, retain=True)

    @property
    def repeats(self) -> bool:
        """Whether what is retained is published again and again, as the broker does not give it to all."""
        return self._retained.repeats

    async def repeat(self, *, anyway: bool = False) -> None:
        """Publish now what is retained, where the broker does not give it to all or `anyway`: somebody lacks it."""
        connection = self._connection
        if (self.repeats or anyway) and connection is not None and self._up.is_set():
            with contextlib.suppress(NotPublished):
                await self._retained.repeat(connection)

    async def subscribe(
        self, topic_filter: str, *, qos: int = 1, limit: int = 1024, patient: bool = False
    ) -> Subscription:
        """Subscribe for the session's life (or until `unsubscribe`) with an inbox of `limit` messages.

        `patient` stops reading the connection while the inbox is nearly full, so that the broker waits and nothing is
        dropped: only for a reader that itself never waits for anything that comes over this connection. An observer of
        a cluster has QoS 0: RabbitMQ 3 keeps what QoS 1 needs on one node, and once that is dead disconnects whoever
        publishes to it.
        """
        if self._presence is None and self.settings.clustered:
            qos = 0
        subscription = Subscription(topic_filter, qos, limit, patient=patient)
        self._subscriptions.append(subscription)
        self._routes.clear()
        connection = self._connection
        if connection is not None:
            try:
                await self._listen(connection, [(topic_filter, qos)])
            except Refused as error:
                if not self.settings.clustered:
                    raise
                connection.give_up(str(error))
            except (LinkLost, aiomqtt.MqttError) as error:
                connection.give_up(str(error))  # the next connect renews it
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.remove(subscription)
        self._routes.clear()
        subscription._let_go()
        connection = self._connection
        if all(other.topic_filter != subscription.topic_filter for other in self._subscriptions) and connection:
            with contextlib.suppress(aiomqtt.MqttError):
                await connection.unsubscribe(subscription.topic_filter)

    # -- the supervisor ---------------------------------------------------------------
    async def run(self) -> None:
        """Keep a connection for ever; ends only by cancellation or `BusError`."""
        retry = FIRST_RETRY
        while True:
            before = self._connects
            try:
                await self._one_connection()
            except Refused as error:
                if not self.settings.clustered:
                    raise BusError(f"{self.settings.url} refuses {self.node!r}: {error}") from None
                _log.warning("%s (%s), trying another node", self.settings.at(self._at).url, error)
                self._at += 1  # a cluster without its quorum refuses what it will take later
            except (aiomqtt.MqttError, LinkLost, OSError) as error:
                self._check_credentials(error)
                tried, self._at = self.settings.at(self._at), self._at + 1
                reason = await why_not(tried) or str(error) or type(error).__name__
                _log.warning("no broker at %s (%s), trying again", tried.url, reason)
            if self._connects > before:
                retry = min(retry, FLAPPING_RETRY) if self._quick_losses else FIRST_RETRY
            await asyncio.sleep(random.uniform(FIRST_RETRY / 2, retry))
            retry = min(LAST_RETRY, retry * 2)

    def _check_credentials(self, error: Exception) -> None:
        """Raise `BusError` for a refusal that waiting does not mend."""
        code = getattr(getattr(error, "rc", None), "value", getattr(error, "rc", None))
        if isinstance(error, MqttConnectError) and code in mqtt.NOT_WELCOME:
            raise BusError(
                f"{self.settings.url} does not let {self.node!r} in ({error}): check [broker] username and password, "
                "and that this id is allowed"
            ) from None

    async def _one_connection(self) -> None:
        self.session = max(self.session + 1, time.time_ns() // 1_000_000)
        connection = await self._open()
        self._connection = connection
        graceful = False
        loss = asyncio.create_task(connection.lost(), name=f"link:{self.node}")
        repeating = asyncio.create_task(self._keep_repeating(connection), name=f"repeat:{self.node}")
        try:
            await self._renew(connection)
            reason = await loss
            self.telemetry.count("bus_disconnects")
            if connection.was_taken_over:
                raise BusError(
                    f"another node called {self.node!r} connected to {self.settings.url}: ids must be unique"
                )
            self._note_loss(reason)
        except asyncio.CancelledError:
            graceful = True
            repeating.cancel()  # nothing of this node is to come after its last word
            await self._say_goodbye(connection)
            raise
        finally:
            self._up.clear()
            self._connection = None
            await connection.leave(gracefully=graceful)
            loss.cancel()
            repeating.cancel()
            await asyncio.wait([loss, repeating])

    def _note_loss(self, reason: str) -> None:
        self._quick_losses = self._quick_losses + 1 if time.monotonic() - self._up_since < QUICK else 0
        hint = ""
        if self._quick_losses >= 3:  # MQTT 3.1.1, and some brokers of MQTT 5, do not say why
            hint = f"; it was so {self._quick_losses} times at once: is another node called {self.node!r} connected?"
        _log.warning("link to %s lost (%s)%s", self.settings.at(self._at).url, reason, hint)

    async def _renew(self, connection: Connection) -> None:
        await self._listen(connection, [(s.topic_filter, s.qos) for s in self._subscriptions])
        self.round_trip = await self._retained.begin(connection, self.session)
        self._up_since = time.monotonic()
        self._connects += 1
        self._up.set()
        async with self._connected_once_more:
            self._connected_once_more.notify_all()

    async def _listen(self, connection: Connection, filters: list[tuple[str, int]]) -> None:
        """Subscribe; raises `Refused` for a filter that is refused, by a cluster a few times."""
        for left in reversed(range(ASKED if self.settings.clustered else 1)):
            try:
                await connection.listen(filters)
                return
            except Refused:
                if not left:
                    raise

    async def _keep_repeating(self, connection: Connection) -> None:
        await self._up.wait()
        await self._retained.keep_repeating(connection)

    async def _say_goodbye(self, connection: Connection) -> None:
        if self._presence is None:
            return
        with contextlib.suppress(LinkLost, Refused, TimeoutError):
            async with asyncio.timeout(2):
                goodbye = self._presence.payload("stopped", self.session)
                await connection.send(self._presence.topic, goodbye, qos=1, retain=True)

    async def _open(self) -> Connection:
        will = None
        if self._presence:
            will = aiomqtt.Will(self._presence.topic, self._presence.payload("offline", self.session), 1, True)
        connection, self._protocol = await open_connection(
            self.settings.at(self._at), self.node, will, self._dispatch, self._protocol
        )
        if self.settings.clustered:
            connection.patience = CONFIRMING
        return connection

    def _dispatch(self, connection: Connection, delivery: Delivery) -> None:
        self._retained.saw(delivery)
        routes, signed_by = self._route(delivery.topic)
        if signed_by is not None and self._seal is not None:
            try:
                opened = self._seal.incoming(delivery.topic, signed_by, delivery.payload)
                delivery = delivery._replace(payload=opened)
            except DecodeError as error:
                self.telemetry.count("messages_forged")
                _log.warning("%s is not believed: %s", delivery.topic, error)
                routes = []
        pending = delivery  # the first reader that takes it acknowledges it, once
        for subscription in routes:
            if subscription._deliver(connection, pending):
                pending = pending._replace(mid=0)
            else:
                self.telemetry.count("bus_dropped")
        if pending.mid:  # nobody took it: say so now, or the broker's window fills with such messages
            connection.acknowledge(delivery)

    def _route(self, topic: str) -> tuple[list[Subscription], Address | None]:
        """Who reads a topic, and which node must have signed what is said there."""
        found = self._routes.get(topic)
        if found is None:
            readers = [s for s in self._subscriptions if matches(s.topic_filter, topic)]
            if len(self._routes) >= ROUTES:
                self._routes.clear()
            found = self._routes[topic] = readers, None if self._seal is None else self._seal.address(topic)
        return found


@contextlib.asynccontextmanager
async def connect(
    settings: BrokerSettings,
    node: str,
    *,
    presence: Presence | None = None,
    telemetry: Telemetry | None = None,
) -> AsyncIterator[Bus]:
    """Hold a session for `node` while the block runs; the link may be down at first and at any time."""
    bus = Bus(settings, node, presence, telemetry)
    try:
        async with asyncio.TaskGroup() as tasks:
            supervisor = tasks.create_task(bus.run(), name=f"bus:{node}")
            try:
                yield bus
            finally:
                supervisor.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:  # the block's own exception, as if there were no group
            raise group.exceptions[0] from None
        raise
