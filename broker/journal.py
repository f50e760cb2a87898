"""What a session tells about itself so that it can be found again after a crash, and the journal that forgets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from broker.message import Delivery, Message
from broker.subscriptions import Subscription


class Journal(Protocol):
    """Told of every change, in order. `after_commit` is how nothing is said to a client that a crash could unsay."""

    @property
    def pending(self) -> bool:
        """Whether something told is not yet safe."""

    @property
    def crowded(self) -> bool:
        """Whether so much is not yet safe that no more should be read from publishers."""

    @property
    def failed(self) -> bool:
        """Whether nothing more can be kept; what waits for a commit then waits for ever."""

    def check(self) -> None:
        """Raises BrokerError where nothing more can be kept."""

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call `action` in the event loop once all that was told so far is safe; actions keep their order."""

    def opened(self, client_id: str, username: str | None, expiry: float) -> None:
        """The client is connected, and its session will outlive the connection for `expiry` seconds."""

    def left(self, client_id: str, expiry: float) -> None:
        """The client is away from now on."""

    def forgotten(self, client_id: str) -> None:
        """Its session ended; its deliveries are told of one by one."""

    def subscribed(self, client_id: str, topic_filter: str, subscription: Subscription) -> None: ...

    def unsubscribed(self, client_id: str, topic_filter: str) -> None: ...

    def queued(self, client_id: str, delivery: Delivery) -> None:
        """A QoS 1 or 2 message waits for the client."""

    def sent(self, delivery: Delivery) -> None:
        """It has a packet id."""

    def released(self, delivery: Delivery) -> None:
        """Its receiver answered PUBREC."""

    def done(self, delivery: Delivery) -> None:
        """It needs no keeping any more."""

    def received(self, client_id: str, packet_id: int) -> None:
        """A QoS 2 publication of the client is taken."""

    def completed(self, client_id: str, packet_id: int) -> None:
        """The client gave its packet id back."""

    def retained(self, message: Message, qos: int) -> None: ...

    def cleared(self, topic: str, message: Message) -> None:
        """`message` is not the retained one of `topic` any more."""


class Forgetful:
    """Keeps nothing: of a broker without persistence, and of a session that ends with its connection."""

    pending = crowded = failed = False

    def check(self) -> None: ...

    def after_commit(self, action: Callable[[], None]) -> None:
        action()

    def opened(self, client_id: str, username: str | None, expiry: float) -> None: ...

    def left(self, client_id: str, expiry: float) -> None: ...

    def forgotten(self, client_id: str) -> None: ...

    def subscribed(self, client_id: str, topic_filter: str, subscription: Subscription) -> None: ...

    def unsubscribed(self, client_id: str, topic_filter: str) -> None: ...

    def queued(self, client_id: str, delivery: Delivery) -> None: ...

    def sent(self, delivery: Delivery) -> None: ...

    def released(self, delivery: Delivery) -> None: ...

    def done(self, delivery: Delivery) -> None: ...

    def received(self, client_id: str, packet_id: int) -> None: ...

    def completed(self, client_id: str, packet_id: int) -> None: ...

    def retained(self, message: Message, qos: int) -> None: ...

    def cleared(self, topic: str, message: Message) -> None: ...


FORGETFUL = Forgetful()
