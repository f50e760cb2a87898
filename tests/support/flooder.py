"""`python -m flooder PORT PAUSE FILE`: publishes what FILE holds at QoS 1, again and again until it is killed.

FILE is the number of packets (4 bytes, big endian) and the packets, encoded. When the broker has acknowledged them all
they are sent again, PAUSE seconds later.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

from broker.codec import encode
from broker.packets import Connect

PUBACK = 4  # bytes


def main() -> None:
    port, pause, file = sys.argv[1:]
    data = memoryview(Path(file).read_bytes())
    link = socket.create_connection(("127.0.0.1", int(port)))
    link.sendall(encode(Connect("mallory")))
    assert link.recv(4) == b"\x20\x02\x00\x00"
    while True:
        unacknowledged = PUBACK * int.from_bytes(data[:4], "big")
        link.sendall(data[4:])
        while unacknowledged:
            unacknowledged -= len(link.recv(min(unacknowledged, 65536)))
        time.sleep(float(pause))


if __name__ == "__main__":
    main()
