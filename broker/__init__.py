"""The lab's MQTT broker: a small embedded one, and a private Mosquitto."""

from broker.mosquitto import MosquittoBroker, MosquittoSettings, private_mosquitto
from broker.server import EmbeddedBroker, embedded_broker, serve
from broker.settings import Access, AccessFiles, BrokerError, EmbeddedSettings, Listener, TlsSettings
from broker.stats import BrokerStats

__all__ = [
    "Access",
    "AccessFiles",
    "BrokerError",
    "BrokerStats",
    "EmbeddedBroker",
    "EmbeddedSettings",
    "Listener",
    "MosquittoBroker",
    "MosquittoSettings",
    "TlsSettings",
    "embedded_broker",
    "private_mosquitto",
    "serve",
]
