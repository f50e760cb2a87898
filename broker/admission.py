"""Whether a CONNECT is served and what it is granted: pure rules, asked before any session is touched."""

from __future__ import annotations

from broker.packets import V5, V311, Connect
from broker.properties import NO_PROPERTIES, Properties
from broker.reasons import Reason
from broker.settings import EmbeddedSettings

MAX_CLIENT_ID = 256  # characters
FOREVER = 0xFFFF_FFFF  # a session expiry interval


def judge(connect: Connect, settings: EmbeddedSettings) -> Reason:
    """Whether this broker serves such a CONNECT at all, whoever sends it."""
    will = connect.will
    if connect.level not in (V311, V5):
        return Reason.UNSUPPORTED_PROTOCOL
    if connect.properties.auth_method is not None:
        return Reason.BAD_AUTHENTICATION_METHOD
    nameless = not connect.client_id and connect.level == V311 and not connect.clean_session
    if len(connect.client_id) > MAX_CLIENT_ID or nameless:
        return Reason.BAD_CLIENT_ID
    if will is not None and will.qos > settings.max_qos:
        return Reason.QOS_NOT_SUPPORTED
    if will is not None and will.retain and not settings.retain_available:
        return Reason.RETAIN_NOT_SUPPORTED
    return Reason.SUCCESS


def granted_expiry(interval: int, settings: EmbeddedSettings) -> float:
    """Seconds of a session expiry interval, within what the broker allows."""
    return settings.session_expiry if interval == FOREVER else min(interval, settings.session_expiry)


def expiry_of(connect: Connect, settings: EmbeddedSettings) -> float:
    """Seconds that the session will outlive its connection."""
    if connect.level == V5:
        return granted_expiry(connect.properties.session_expiry or 0, settings)
    return 0.0 if connect.clean_session else settings.session_expiry


def keepalive_of(connect: Connect, settings: EmbeddedSettings) -> int:
    """Seconds; only a client of MQTT 5 can be told of another than its own."""
    if connect.level != V5 or not settings.max_keepalive:
        return connect.keepalive
    return min(connect.keepalive, settings.max_keepalive)


def welcome(connect: Connect, client_id: str, settings: EmbeddedSettings) -> Properties:
    """The properties of a CONNACK: what differs from what the client asked for, or from the standard's defaults."""
    if connect.level != V5:
        return NO_PROPERTIES
    asked, expiry = connect.properties, expiry_of(connect, settings)
    keepalive = keepalive_of(connect, settings)
    informed = asked.request_response_info == 1 and settings.response_prefix
    return Properties(
        session_expiry=None if expiry == (asked.session_expiry or 0) else int(expiry),
        receive_maximum=settings.receive_maximum,
        maximum_qos=None if settings.max_qos == 2 else settings.max_qos,
        retain_available=None if settings.retain_available else 0,
        maximum_packet_size=settings.max_packet_size,
        assigned_client_id=None if connect.client_id else client_id,
        topic_alias_maximum=settings.topic_alias_maximum or None,
        server_keepalive=None if keepalive == connect.keepalive else keepalive,
        response_info=f"{settings.response_prefix}/{client_id}" if informed else None,
    )
