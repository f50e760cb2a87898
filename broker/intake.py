"""One client's publications on their way in: aliases, limits, QoS 2's memory, and the answers that wait; no I/O."""

from __future__ import annotations

import logging
from typing import Protocol

from broker.backpressure import Hold, WithheldAcks
from broker.codec import encode, encode_ack
from broker.message import Message
from broker.packets import V5, ProtocolError, Puback, Pubcomp, Publish, Pubrec
from broker.properties import NO_PROPERTIES, PUBACK, PUBCOMP, PUBREC, Properties
from broker.reasons import FAILURE, Reason
from broker.router import Reached, Router
from broker.session import Session

UNTOLD_MAXIMUM = 16_384  # unfinished QoS 2 publications of an MQTT 3.1.1 client, which cannot be told of a limit

_log = logging.getLogger("megace2.broker")


class Line(Protocol):
    """The connection, as far as what is said over it needs to know."""

    def answer(self, data: bytes) -> None:
        """Send bytes in this turn of the loop."""

    def pause(self) -> None:
        """Read no more until as many calls of `resume`."""

    def resume(self) -> None: ...


class Intake:
    """Takes PUBLISH and PUBREL. QoS 2: a message is routed when it comes, and its id remembered until PUBREL."""

    def __init__(self, router: Router, line: Line, version: int, problem_info: bool) -> None:
        settings = router.settings
        self._router = router
        self._line = line
        self._version = version
        self._problem_info = problem_info
        self._aliases: dict[int, str] = {}
        self._withheld = WithheldAcks(settings.max_withheld_messages, settings.max_withheld_bytes)
        self._plain = 0  # of what is withheld, how many are PUBACKs
        self._paused = False
        self._denied = False

    def publish(self, session: Session, packet: Publish, now: float) -> None:
        """Route a publication, and answer it unless somebody who is full makes it wait. Raises ProtocolError."""
        topic = self._topic(packet)
        self._check(session, packet)
        if packet.qos == 2 and packet.packet_id in session.incoming:
            self._acknowledge(packet, encode_ack(PUBREC, packet.packet_id), [])  # sent again: it was routed then
            return
        self._router.counters.messages_in += 1
        reason, full = Reason.SUCCESS, list[Session]()
        if not self._router.may_publish(session.identity, topic):
            reason = self._deny(session, topic)
        elif self._is_mislabelled(packet):
            reason = Reason.PAYLOAD_FORMAT_INVALID
        else:
            reached = self._route(session, topic, packet, now)
            reason = Reason.SUCCESS if reached.matched else Reason.NO_MATCHING_SUBSCRIBERS
            full = reached.full
        if packet.qos == 0:
            return
        if packet.qos == 2 and reason < FAILURE:
            session.incoming.add(packet.packet_id)
            session.journal.received(session.client_id, packet.packet_id)
        self._acknowledge(packet, self._answer_to(packet, reason), full)

    def release(self, session: Session, packet_id: int) -> None:
        """PUBREL: the id of a QoS 2 publication is free again."""
        if packet_id in session.incoming:
            session.incoming.discard(packet_id)
            session.journal.completed(session.client_id, packet_id)
            self._line.answer(encode_ack(PUBCOMP, packet_id))
        else:
            unknown = Pubcomp(packet_id, Reason.PACKET_ID_NOT_FOUND)
            self._line.answer(encode(unknown, self._version))

    # --- may it come ------------------------------------------------------------------------------------------

    def _topic(self, packet: Publish) -> str:
        alias = packet.properties.topic_alias
        if alias is None:
            return packet.topic
        if alias > self._router.settings.topic_alias_maximum:
            raise ProtocolError(f"topic alias {alias}", Reason.TOPIC_ALIAS_INVALID)
        if packet.topic:
            self._aliases[alias] = packet.topic
        elif alias not in self._aliases:
            raise ProtocolError(f"topic alias {alias} stands for nothing", Reason.PROTOCOL_ERROR)
        return self._aliases[alias]

    def _check(self, session: Session, packet: Publish) -> None:
        settings = self._router.settings
        if packet.qos > settings.max_qos:
            raise ProtocolError(f"QoS {packet.qos}", Reason.QOS_NOT_SUPPORTED)
        if packet.retain and not settings.retain_available:
            raise ProtocolError("a retained message", Reason.RETAIN_NOT_SUPPORTED)
        if packet.properties.subscription_ids:
            raise ProtocolError("a client's PUBLISH with a subscription identifier", Reason.PROTOCOL_ERROR)
        if packet.qos:
            limit = settings.receive_maximum if self._version == V5 else UNTOLD_MAXIMUM
            known = packet.qos == 2 and packet.packet_id in session.incoming
            if not known and self._plain + len(session.incoming) >= limit:
                raise ProtocolError(f"over {limit} publications unfinished", Reason.RECEIVE_MAXIMUM_EXCEEDED)

    def _deny(self, session: Session, topic: str) -> Reason:
        self._router.counters.dropped["denied"] += 1
        level = logging.DEBUG if self._denied else logging.WARNING  # once: it may go on all day
        _log.log(level, "%r may not publish to %r", session.client_id, topic)
        self._denied = True
        return Reason.NOT_AUTHORIZED

    def _is_mislabelled(self, packet: Publish) -> bool:
        if not self._router.settings.validate_utf8_payloads or packet.properties.payload_format != 1:
            return False
        try:
            str(packet.payload, "utf-8")
        except UnicodeDecodeError:
            self._router.counters.dropped["denied"] += 1
            return True
        return False

    def _route(self, session: Session, topic: str, packet: Publish, now: float) -> Reached:
        message = Message.of(topic, packet, now)
        return self._router.publish(message, packet.qos, packet.retain, session)

    # --- the answer -------------------------------------------------------------------------------------------

    def _answer_to(self, packet: Publish, reason: Reason) -> bytes:
        """PUBACK or PUBREC. MQTT 3.1.1 has no word for a refusal."""
        if self._version != V5 or reason == Reason.SUCCESS:
            return encode_ack(PUBACK if packet.qos == 1 else PUBREC, packet.packet_id)
        if reason >= FAILURE and not self._router.settings.explain_refusals:
            reason = Reason.UNSPECIFIED
        told = reason >= FAILURE and self._problem_info
        properties = Properties(reason_string=reason.text) if told else NO_PROPERTIES
        return encode((Puback if packet.qos == 1 else Pubrec)(packet.packet_id, reason, properties), V5)

    def _acknowledge(self, packet: Publish, answer: bytes, full: list[Session]) -> None:
        if not full and not len(self._withheld):
            self._line.answer(answer)
            return
        hold = Hold(self, answer, len(packet.payload), len(full))
        for session in full:
            session.holds.append(hold)
        self._withheld.add(hold)
        self._plain += packet.qos == 1
        if self._withheld.full and not self._paused:
            self._paused = True
            self._line.pause()

    def let_go(self) -> None:
        """Send the answers that nothing holds back any more."""
        for answer in self._withheld.free():
            self._plain -= answer[0] >> 4 == PUBACK
            self._line.answer(answer)
        if self._paused and not self._withheld.full:
            self._paused = False
            self._line.resume()
