"""Three RabbitMQ nodes with the MQTT plugin, on the loopback, apart from any other Erlang of this machine.

They have an epmd, a cookie and a home of their own. Sessions are quorum queues: a classic queue lies on the node to
which its client first connected, and is gone with that one. Mirrored ones would outlive it, but RabbitMQ 3.10.8 ceases
to confirm what is published to them (docs/scale.md).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from broker.cluster import HOST, NODES, Cluster, Node, free_ports, required, running

# Debian's own command insists on being root or `rabbitmq`, and becomes the latter.
PLACES = "/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"
SESSION_TTL = 3600  # s
PREFETCH = 64  # unacknowledged messages to a client
USER = "guest"
_EPMD = {"ERL_EPMD_ADDRESS": HOST}


@contextlib.asynccontextmanager
async def rabbitmq_cluster() -> AsyncIterator[Cluster]:
    """Raises `BrokerError` where there is no RabbitMQ or it does not start."""
    binary = rabbitmq_server()
    version = _version(binary)
    async with (
        _own_epmd() as epmd,
        # all at once, they would agree on a cluster, and not on who keeps the clients' ids
        running("rabbitmq", version, lambda folder: _nodes(binary, folder, epmd), staggered=True) as cluster,
    ):
        yield cluster


def rabbitmq_server() -> Path:
    folders = [str(path) for place in PLACES for path in sorted(Path("/").glob(place.lstrip("/")))]
    return required("rabbitmq-server", "rabbitmq-server", *reversed(folders))


def _version(binary: Path) -> str:
    found = re.search(r"rabbitmq_server-([0-9.]+)", str(binary.resolve()))
    return found[1] if found else "?"


@contextlib.asynccontextmanager
async def _own_epmd() -> AsyncIterator[int]:
    """An Erlang port mapper on a port of its own, by which only these nodes find each other."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="megace2-epmd-") as name:
        epmd = Node("epmd", port, (str(required("epmd", "erlang-base")), "-port", str(port)), _EPMD, Path(name))
        await epmd.start()
        try:
            yield port
        finally:
            await epmd.kill()


def _nodes(binary: Path, folder: Path, epmd: int) -> list[Node]:
    ports = free_ports(2 * NODES)
    names = [f"megace2-{n + 1}@localhost" for n in range(NODES)]
    home = folder / "home"
    home.mkdir()
    cookie = home / ".erlang.cookie"
    cookie.write_text(secrets.token_hex(16))
    cookie.chmod(0o400)
    (folder / "plugins").write_text("[rabbitmq_mqtt].\n")
    (folder / "definitions.json").write_text(json.dumps(definitions()))
    nodes = []
    for n, name in enumerate(names):
        short, mqtt, distribution = name.partition("@")[0], ports[n], ports[NODES + n]
        config = folder / f"{short}.conf"
        config.write_text(rabbitmq_config(mqtt, names, folder / "definitions.json"))
        environment = {
            **_EPMD,
            "ERL_EPMD_PORT": str(epmd),
            "HOME": str(home),
            "RABBITMQ_NODENAME": name,
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / f"{short}.pid"),
            "RABBITMQ_LOGS": "-",
            # 32 cores' worth of busy-waiting schedulers would take the machine from whom they serve
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }
        nodes.append(Node(short, mqtt, (str(binary),), environment, folder))
    return nodes


def rabbitmq_config(mqtt: int, names: Sequence[str], definitions: Path) -> str:
    """One node's rabbitmq.conf; AMQP is not listened for."""
    peers = "\n".join(f"cluster_formation.classic_config.nodes.{n} = {name}" for n, name in enumerate(names, 1))
    return f"""listeners.tcp = none
mqtt.listeners.tcp.1 = {HOST}:{mqtt}
mqtt.allow_anonymous = true
mqtt.default_user = {USER}
mqtt.default_pass = {USER}
mqtt.vhost = /
mqtt.exchange = amq.topic
mqtt.durable_queue_type = quorum
mqtt.subscription_ttl = {SESSION_TTL * 1000}
mqtt.prefetch = {PREFETCH}
mqtt.tcp_listen_options.nodelay = true
mqtt.retained_message_store = rabbit_mqtt_retained_msg_store_dets
mqtt.retained_message_store_dets_sync_interval = 2000
cluster_formation.peer_discovery_backend = classic_config
{peers}
cluster_partition_handling = pause_minority
cluster_keepalive_interval = 2000
net_ticktime = 8
load_definitions = {definitions}
vm_memory_high_watermark.relative = 0.3
disk_free_limit.absolute = 200MB
log.console = true
log.console.level = warning
log.file = false
"""


def definitions() -> dict[str, object]:
    """The user, in the form in which a broker exports them."""
    salt = secrets.token_bytes(4)
    word = base64.b64encode(salt + hashlib.sha256(salt + USER.encode()).digest()).decode()
    return {
        "users": [
            {
                "name": USER,
                "password_hash": word,
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": ["administrator"],
            }
        ],
        "vhosts": [{"name": "/"}],
        "permissions": [{"user": USER, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
    }
