"""A device without this package: register, send one window by hand, print the answer (docs/protocol.md).

    python examples/plain_paho.py [host [port [site]]]

It needs paho-mqtt, numpy, msgpack and zstandard, a broker, a cloud and an edge named edge-1 with the built-in corpus's
widths (text 24, audio 12, vision 10), which are the defaults.
"""

import queue
import struct
import sys
import time

import msgpack
import numpy as np
import paho.mqtt.client as mqtt
import zstandard

given = sys.argv[1:]
host, port, site = given + ["127.0.0.1", "1883", "lab"][len(given) :]
DEVICE, EDGE, PATIENCE = "plain-01", "edge-1", 60.0  # s
WIDTHS = {"text": 24, "audio": 12, "vision": 10}
up = f"megace2/v1/{site}/device/{DEVICE}/up/{{}}/{EDGE}"
DTYPES = {"float32": 0, "float16": 1, "uint8": 2, "uint16": 3, "int16": 4, "int32": 5, "int8": 6}


def pack_array(a: np.ndarray) -> msgpack.ExtType:
    head = struct.pack(f"<BB{a.ndim}I", DTYPES[a.dtype.name], a.ndim, *a.shape)
    return msgpack.ExtType(1, head + a.tobytes())


def encode(message: dict) -> bytes:
    body = msgpack.packb(message, default=pack_array)
    return b"M2\x01\x01" + zstandard.ZstdCompressor().compress(body)  # flags 1: the body is one zstd frame


def decode(payload: bytes) -> dict:
    body = zstandard.ZstdDecompressor().decompress(payload[4:]) if payload[3] & 1 else payload[4:]
    return msgpack.unpackb(body)


def as_float32(values: np.ndarray) -> dict:
    """A (T, D) sequence in the plainest coding: every channel as float32 (code 0), channel by channel."""
    steps, channels = values.shape
    none = {"s": np.zeros(0, np.uint16), "o": np.zeros(0, np.int16), "q": np.zeros((0, steps), np.uint8)}
    return {"T": steps, "c": np.zeros(channels, np.uint8), **none, "f": np.ascontiguousarray(values.T, np.float32)}


heard: queue.Queue = queue.Queue()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, DEVICE)
client.on_message = lambda client, userdata, message: heard.put((message.topic.split("/")[-2], decode(message.payload)))
session, epoch = int(time.time() * 1000), int(time.time())  # both must rise from run to run
state = {"session": session, "role": "device"}
client.will_set(up.format("state"), encode({**state, "state": "offline"}), 1, retain=True)
client.connect(host, int(port), keepalive=15)
client.loop_start()
client.subscribe(f"megace2/v1/{site}/device/{DEVICE}/dn/+/{EDGE}", 1)
client.publish(up.format("state"), encode({**state, "state": "online"}), 1, retain=True)
client.publish(up.format("profile"), encode({"dims": WIDTHS, "stages": ["features"]}), 1, retain=True)

kind, message = heard.get(timeout=PATIENCE)  # the configuration, or why there is none
if kind != "config":
    sys.exit(f"{EDGE} refuses this device: {message['reason']}")
rng = np.random.default_rng(0)
sequences = {m: as_float32(rng.standard_normal((20, width)).astype(np.float32)) for m, width in WIDTHS.items()}
window = {"seq": 1, "captured_at": time.time(), "sequences": sequences}
packet = {"device": DEVICE, "epoch": epoch, "sent_at": time.time(), "stage": "features", "windows": [window]}
client.publish(up.format("packet"), encode(packet), 1)
while kind != "prediction":  # a configuration may come again
    kind, message = heard.get(timeout=PATIENCE)
score, told = message["score"], message["reason"] or f"model {message['version']} of {EDGE}"
print(f"{message['status']}: score {score}, {message['label']} ({told})")
client.publish(up.format("state"), encode({**state, "state": "stopped"}), 1, retain=True).wait_for_publish(5)
client.disconnect()
client.loop_stop()
