"""Three NATS servers that speak MQTT, on the loopback: JetStream keeps what sessions and retained messages need."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from broker.cluster import HOST, NODES, Cluster, Node, free_ports, required, running

ACK_WAIT = 10  # s after which what a client did not acknowledge is sent to it again
PACKET = 1 << 20  # bytes


@contextlib.asynccontextmanager
async def nats_cluster() -> AsyncIterator[Cluster]:
    """Raises `BrokerError` where there is no nats-server or it does not start."""
    binary = nats_server()
    told = await asyncio.create_subprocess_exec(str(binary), "--version", stdout=asyncio.subprocess.PIPE)
    version = (await told.communicate())[0].decode().strip().rpartition("v")[2]
    async with running("nats", version, lambda folder: _nodes(binary, folder), staggered=False) as cluster:
        yield cluster


def nats_server() -> Path:
    return required("nats-server", "nats-server")


def _nodes(binary: Path, folder: Path) -> list[Node]:
    ports = free_ports(3 * NODES)
    clients, routes, mqtt = ports[:NODES], ports[NODES : 2 * NODES], ports[2 * NODES :]
    nodes = []
    for n in range(NODES):
        name = f"nats-{n + 1}"
        config = folder / f"{name}.conf"
        config.write_text(nats_config(name, clients[n], routes[n], mqtt[n], routes, folder / name))
        nodes.append(Node(name, mqtt[n], (str(binary), "-c", str(config)), {}, folder))
    return nodes


def nats_config(name: str, client: int, route: int, mqtt: int, routes: Sequence[int], store: Path) -> str:
    """One server's configuration; all that MQTT keeps is on all three."""
    others = ", ".join(f"nats://{HOST}:{port}" for port in routes if port != route)
    return f"""server_name: {name}
listen: {HOST}:{client}
max_payload: {PACKET}
jetstream {{ store_dir: "{store}", max_memory_store: 64MB, max_file_store: 2GB }}
cluster {{ name: megace2, listen: {HOST}:{route}, routes: [{others}] }}
mqtt {{
  listen: {HOST}:{mqtt}
  ack_wait: "{ACK_WAIT}s"
  max_ack_pending: 64
  stream_replicas: {NODES}
  consumer_replicas: {NODES}
}}
"""
