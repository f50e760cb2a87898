"""`python -m benchmarks.security_load PORT SIZE SECONDS [CA [CERTIFICATE KEY]]`: a broker kept busy, by TLS or not.

One publisher sends its window and waits until that is acknowledged, one subscriber acknowledges what arrives, each in
a thread of its own with a blocking socket: the same code for plain and for encrypted ones. Prints messages a second at
the subscriber, and the median milliseconds of a connection (TCP, TLS, CONNECT to CONNACK). With `serve CERTIFICATE KEY
CA` in place of these it is an embedded broker, which prints its ports: in the clear, TLS, TLS with clients'
certificates.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import threading
import time
from pathlib import Path
from statistics import median

from benchmarks.broker_load import TOPIC, WARM_UP, Subscriber, connect
from broker.codec import encode
from broker.packets import Publish
from broker.server import embedded_broker
from broker.settings import EmbeddedSettings, Listener, TlsSettings

WINDOW = 16  # messages that the publisher keeps unacknowledged
PUBACK = 4  # bytes
CONNECTIONS = 40


def context(files: list[str]) -> ssl.SSLContext | None:
    if not files:
        return None
    made = ssl.create_default_context(cafile=files[0])
    if len(files) > 1:
        made.load_cert_chain(files[1], files[2])
    return made


def connecting(port: int, tls: ssl.SSLContext | None) -> float:
    """Median ms until a broker has let a client in."""
    times = []
    for number in range(CONNECTIONS):
        began = time.perf_counter()
        link = connect(port, f"caller-{number}", tls=tls)
        times.append(time.perf_counter() - began)
        link.close()
    return 1000 * median(times)


def rate(port: int, size: int, seconds: float, tls: ssl.SSLContext | None) -> float:
    """Messages a second at the subscriber."""
    subscriber, publisher = Subscriber(port, size, tls), connect(port, "publisher", tls=tls)
    window = b"".join(encode(Publish(TOPIC, bytes(size), 1, packet_id=at + 1)) for at in range(WINDOW))
    ends = threading.Event()

    def publish() -> None:
        while not ends.is_set():
            publisher.sendall(window)
            awaited = WINDOW * PUBACK
            while awaited:
                awaited -= len(publisher.recv(awaited))

    def receive() -> None:
        while not ends.is_set():
            subscriber.on_read()

    threads = [threading.Thread(target=work, daemon=True) for work in (publish, receive)]
    for thread in threads:
        thread.start()
    time.sleep(WARM_UP)
    began, before = time.perf_counter(), subscriber.messages
    time.sleep(seconds)
    measured = (subscriber.messages - before) / (time.perf_counter() - began)
    ends.set()
    threads[0].join()
    connect(port, "subscriber", tls=tls).close()  # takes it over, and its session is gone: the other thread ends
    return measured


async def serve(certificate: Path, key: Path, ca: Path) -> None:
    one_sided = TlsSettings(certificate, key)
    mutual = TlsSettings(certificate, key, ca=ca, require_certificate=True)
    listeners = (Listener(tls=one_sided), Listener(tls=mutual))
    async with embedded_broker(EmbeddedSettings(listeners=listeners)) as broker:
        print(*(url.rpartition(":")[2] for url in broker.urls), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    if sys.argv[1] == "serve":
        asyncio.run(serve(*map(Path, sys.argv[2:])))
    else:
        port, size, seconds, *files = sys.argv[1:]
        tls = context(files)
        print(rate(int(port), int(size), float(seconds), tls), connecting(int(port), tls))


if __name__ == "__main__":
    main()
