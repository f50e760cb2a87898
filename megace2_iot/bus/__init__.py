"""The reconnecting MQTT session of one node: `connect`, and what it gives and takes."""

from megace2_iot.bus.session import BULK_WINDOW, Bus, BusError, connect
from megace2_iot.bus.settings import BrokerSettings, Presence
from megace2_iot.bus.subscription import Subscription
from megace2_iot.mqtt import Delivery, LinkLost, NotPublished, Refused

__all__ = [
    "BULK_WINDOW",
    "BrokerSettings",
    "Bus",
    "BusError",
    "Delivery",
    "LinkLost",
    "NotPublished",
    "Presence",
    "Refused",
    "Subscription",
    "connect",
]
