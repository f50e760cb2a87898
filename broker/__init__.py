"""The lab's MQTT broker: a small embedded one, and a private Mosquitto."""

from broker.mosquitto import MosquittoBroker, MosquittoSettings, private_mosquitto
from broker.server import EmbeddedBroker, embedded_broker, serve
from broker.settings import Access, BrokerError, EmbeddedSettings
from broker.stats import BrokerStats

__all__ = [
    "Access",
    "BrokerError",
    "BrokerStats",
    "EmbeddedBroker",
    "EmbeddedSettings",
    "MosquittoBroker",
    "MosquittoSettings",
    "embedded_broker",
    "private_mosquitto",
    "serve",
]
