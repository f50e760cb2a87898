"""MQTT 5's reason codes, and the return codes of MQTT 3.1.1 that say the same."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """Why (MQTT 5, 2.4). From 0x80 on it is a failure."""

    SUCCESS = 0x00  # also: granted QoS 0, normal disconnection
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_PROTOCOL = 0x84
    BAD_CLIENT_ID = 0x85
    BAD_LOGIN = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_ID_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B

    @property
    def text(self) -> str:
        """For a reason string."""
        return self.name.lower().replace("_", " ")


FAILURE = 0x80

ACCEPTED, BAD_LEVEL, BAD_CLIENT_ID, UNAVAILABLE, BAD_LOGIN, NOT_AUTHORIZED = range(6)  # CONNACK of MQTT 3.1.1

_RETURN_CODES = {
    Reason.SUCCESS: ACCEPTED,
    Reason.UNSUPPORTED_PROTOCOL: BAD_LEVEL,
    Reason.BAD_CLIENT_ID: BAD_CLIENT_ID,
    Reason.BAD_LOGIN: BAD_LOGIN,
    Reason.SERVER_UNAVAILABLE: UNAVAILABLE,
    Reason.SERVER_BUSY: UNAVAILABLE,
    Reason.QUOTA_EXCEEDED: UNAVAILABLE,
}


def return_code(reason: int) -> int:
    """The CONNACK return code of MQTT 3.1.1 for a reason code of MQTT 5."""
    return _RETURN_CODES.get(Reason(reason), NOT_AUTHORIZED)
