"""Decoders of what lies on a disk: files of people and programs, and our own after the disk changed them."""

from __future__ import annotations

import pickle
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import numpy as np

from broker import acl
from broker.database import open_database
from broker.lab.certificates import Authority
from broker.lab.registry import read_registry
from broker.lab.site import Site
from broker.passwords import Users
from broker.restoring import load as load_sessions
from broker.restoring import restore
from broker.router import Router
from broker.settings import BrokerError, EmbeddedSettings
from broker.tls import revoked_serials
from cloud_aggregator.history import entries, releases
from cloud_aggregator.store import Store, UpdateRow
from device_agent.extraction.vectors import open_vectors
from device_agent.outbox import look
from device_agent.outbox.bounds import Bounds
from device_agent.outbox.file import OutboxError
from device_agent.outbox.numbering import Numbering
from device_agent.outbox.outbox import Outbox
from device_agent.windows import from_record, to_record
from edge_gateway.labels import LabelledStore
from edge_gateway.store import EdgeStore
from megace2_iot import codec
from megace2_iot.blobs import digest
from megace2_iot.bus import BrokerSettings
from megace2_iot.codec import DecodeError
from megace2_iot.datasets import load
from megace2_iot.datasets.scaling import from_json
from megace2_iot.datasets.unpickle import read_pickle
from megace2_iot.datasets.words import read_vectors
from megace2_iot.features import MODALITIES
from megace2_iot.identity import Identity, load_identity, tls_context
from megace2_iot.model import checkpoint
from megace2_iot.model.config import ModelConfig
from megace2_iot.model.torch_file import read_state_dict
from megace2_iot.problems import Problem
from megace2_iot.recording import LENGTH, MAGIC, read_recording
from megace2_iot.service import Settings
from megace2_iot.tensors import encode_tensors
from tests.fuzz import seeds
from tests.fuzz.fuzzer import MiB, Target

# What ends a program whose own database was changed where SQLite does not see it; the next start looks closely.
DAMAGED = (sqlite3.Error, ValueError, TypeError, KeyError)


def targets(scratch: Path) -> list[Target]:
    """Of files below `scratch`."""
    return [*_data_sets(scratch), *_models(scratch), *_settings(scratch), *_own(scratch), *_databases(scratch)]


def _file(
    name: str, path: Path, read: Callable[[Path], object], raises: tuple[type[Exception], ...], *sound: bytes
) -> Target:
    """A decoder of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def decode(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    return Target(name, decode, raises, sound, lambda size: 56 * MiB + 64 * size)


# -- of strangers -----------------------------------------------------------------------
def _data_sets(scratch: Path) -> list[Target]:
    columns = dict.fromkeys(MODALITIES, seeds.VALUES[None])
    mult = {"train": {**columns, "labels": np.ones((1, 1, 1)), "id": np.array([["v1", "0", "1"]])}}
    csv = b"text,label,split\nit was good,1.5,train\nit was bad,-2,test\n"
    record = codec.encode({"at": 1.0, "device": "cam-1", "packet": seeds.MESSAGES[0].encode()}, level=0)
    recording = MAGIC + 2 * (LENGTH.pack(len(record)) + record)
    glove = b"it 1 2 3\ngood 0.5 0 -1\n<unk> 0 0 0\n"
    return [
        _file("pickle", scratch / "p.pkl", read_pickle, (ValueError,), pickle.dumps(mult, protocol=4)),
        _file("pickle_mult", scratch / "m.pkl", load, (ValueError,), pickle.dumps(mult, protocol=4)),
        _file("csv", scratch / "t.csv", load, (ValueError,), csv),
        _file("npz", scratch / "t.npz", load, (ValueError,), seeds.table(), seeds.sequences()),
        _file("recording", scratch / "r.m2", read_recording, (ValueError,), recording),
        _file("vectors", scratch / "v", lambda path: read_vectors(path, ["it"]), (ValueError,), glove, seeds.vectors()),
        _file("word_vectors", scratch / "w", _find_word, (Problem,), glove, seeds.vectors()),
    ]


def _find_word(path: Path) -> None:
    open_vectors(path, max_words=100).pieces("it")


def _models(scratch: Path) -> list[Target]:
    scaling = b'{"text": [[0, 1], [1, 1]], "audio": [[0], [1]]}'
    return [
        Target("model_config", ModelConfig.from_json, (ValueError,), (seeds.config().to_json().encode(),)),
        Target("scaling", lambda data: from_json(data.decode("latin1")), (ValueError,), (scaling,)),
        _file("checkpoint", scratch / "c.safetensors", checkpoint.load, (ValueError,), *seeds.checkpoints(scratch)),
        _file("torch_file", scratch / "c.pt", read_state_dict, (ValueError,), seeds.torch_file()),
    ]


# -- of people --------------------------------------------------------------------------
def _settings(scratch: Path) -> list[Target]:
    site = scratch / "site"
    access = b"# who\nuser cam-1\ntopic read a/#\npattern write up/%u/#\n"
    users = b"cam-1:$7$101$c2FsdA==$aGFzaA==\nold:$6$c2FsdA==$aGFzaA==\n"
    toml = b'[broker]\nurl = "mqtt://127.0.0.1"\nkeepalive = 5\n[site]\nname = "lab"\n'
    identity = Identity(id="cam-1", role="device", site="lab", base="megace2/v1", url="mqtts://x")
    node = scratch / "node"
    pem = (site / "pki" / "ca.crt").read_bytes()
    (scratch / "pki").mkdir()
    (scratch / "pki" / "ca.crt").write_bytes(pem)
    return [
        _file("access_list", scratch / "acl", acl.read, (BrokerError,), access),
        _file("password_file", scratch / "users", Users.read, (BrokerError,), users),
        _file("settings", scratch / "megace2.toml", _read_settings, (Problem,), toml),
        _file("site", scratch / "s" / "site.json", _parent(Site), (BrokerError,), (site / "site.json").read_bytes()),
        _file("nodes", scratch / "s" / "nodes.json", _parent(read_registry), (BrokerError,), seeds.registry()),
        _file("identity", node / "node.json", _parent(load_identity), (Problem,), identity.model_dump_json().encode()),
        _file("authority", scratch / "ca" / "ca.crt", _parent(tls_context), (Problem,), pem),
        _file(
            "authority_key",
            scratch / "pki" / "ca.key",
            _parent(Authority),
            (BrokerError,),
            (site / "pki" / "ca.key").read_bytes(),
        ),
        _file("crl", scratch / "crl.pem", revoked_serials, (BrokerError,), (site / "pki" / "crl.pem").read_bytes()),
    ]


def _parent(read: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: read(path.parent)


def _read_settings(path: Path) -> None:
    Settings(path).section("broker", BrokerSettings)


# -- of our own -------------------------------------------------------------------------
def _own(scratch: Path) -> list[Target]:
    store = EdgeStore(scratch / "edge")
    pointer, local = (one.encode() for one in seeds.MESSAGES if one.kind in ("model", "local_model"))
    adapter = encode_tensors(seeds.TENSORS, {"judged": '{"gate": "on", "stands_on": ["a", "b"]}'})
    in_store = partial(Path, store.directory)
    return [
        Target("record", from_record, (DecodeError, KeyError, TypeError), (to_record(seeds.window()),)),
        _file("edge_dedup", in_store("dedup"), lambda path: store.dedup(64), (), seeds.dedup_state()),
        _file("edge_release", in_store("release"), lambda path: store.release(), (), pointer),
        _file("edge_local", in_store("local"), lambda path: store.local(), (), local),
        _file("edge_adapter", in_store("adapter.safetensors"), lambda path: store.adapter(), (), adapter),
        _file("edge_round", in_store("round.json"), lambda path: store.round_number(), (), b'{"round": 7}'),
        _file("epoch", scratch / "o" / "cam.outbox.epoch", _number, (), b"1764360000000 2000\n"),
    ]


def _number(path: Path) -> None:
    Numbering(path.with_suffix(""), epoch=1764360000000, last=7, clean=False).next()


# -- of our own, in SQLite --------------------------------------------------------------
def _databases(scratch: Path) -> list[Target]:
    return [
        _database("outbox", scratch, _use_outbox, _fill_outbox, (OutboxError, *DAMAGED)),
        _database("ledger", scratch, _use_ledger, _fill_ledger, (Problem, *DAMAGED)),
        _database("labelled", scratch, _use_labelled, _fill_labelled, (Problem, DecodeError, *DAMAGED)),
        _database("sessions", scratch, _use_sessions, _fill_sessions, (BrokerError,)),
    ]


def _database(
    name: str,
    scratch: Path,
    use: Callable[[Path], object],
    fill: Callable[[Path], object],
    raises: tuple[type[Exception], ...],
) -> Target:
    """A database of its own folder, which is made anew each time; `fill` makes a sound one."""
    path = scratch / name / ("ledger.sqlite" if name == "ledger" else "database")

    def decode(data: bytes) -> None:
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        path.write_bytes(data)
        use(path)

    path.parent.mkdir()
    fill(path)
    return Target(name, decode, raises, (path.read_bytes(),), lambda size: 16 * MiB + 64 * size)


def _outbox(path: Path) -> Outbox:
    return Outbox(path, Bounds(windows=8, size=MiB, age=1e9), fsync="off")


def _fill_outbox(path: Path) -> None:
    outbox = _outbox(path)
    for number in range(10):
        outbox.accept(to_record(seeds.window()), 1.0 + number, 20.0)
    outbox.close()


def _use_outbox(path: Path) -> None:
    with suppress(OutboxError):
        look.stats(path)
        list(look.windows(path, 5))
    outbox = _outbox(path)
    try:
        for due in outbox.due(30.0, 4, max_unanswered=8):
            outbox.free(due.seq)
        outbox.mark_told(outbox.gaps_due(30.0, 9), 30.0, 5.0)
        for number in range(4):
            outbox.accept(b"record", 30.0 + number, 31.0)
        outbox.drop(0, 5, 1e9)
        outbox.flush()
    finally:
        outbox.close()


def _fill_ledger(path: Path) -> None:
    with Store.open(path.parent, durable=False) as store:
        model, stem = encode_tensors(seeds.TENSORS, {}), encode_tensors(seeds.TENSORS, {"stem": "1"})
        store.begin_family("f", "{}", model, stem)
        store.note_scores("f", 1, {"acc2": 0.75})
        for number in range(2):
            body = b"delta %d" % number
            row = UpdateRow(digest(body), "e1", "f", 1, number, {"a": 2.5}, "int8", digest(body), len(body), 1e9)
            store.journal.receive(row, body)
        store.journal.accept(row.id, [model], 2e9, 0.5)


def _use_ledger(path: Path) -> None:
    with Store.open(path.parent, durable=False) as store:
        journal = store.journal
        journal.pending()
        entries(store.ledger)
        releases(store.ledger)
        if (family := store.family()) is not None:
            store.latest(family.family)
            journal.folded(family.family)
            journal.accepted_arrivals(family.family)
            journal.norms(family.family, 20)
            store.prune(family.family, 2)


def _labelled(path: Path) -> LabelledStore:
    return LabelledStore(path, limit=8)


def _fill_labelled(path: Path) -> None:
    with closing(_labelled(path)) as store:
        for seq in range(4):
            store.remember("cam-1", 1, seq, seeds.SHA, lambda: {"text": seeds.VALUES}, 99, "", False)
            store.label("cam-1", 1, seq, 0.5)


def _use_labelled(path: Path) -> None:
    with closing(_labelled(path)) as store:
        store.of_stem(seeds.SHA)
        store.remember("cam-1", 1, 9, seeds.SHA, lambda: {"text": seeds.VALUES}, 99, "", False)
        store.label("cam-1", 1, 9, 0.5)


def _fill_sessions(path: Path) -> None:
    connection, _ = open_database(path, False, load_sessions)
    with closing(connection):
        connection.execute("INSERT INTO message VALUES (1, 'a/b', x'00', x'', 2e9)")
        connection.execute("INSERT INTO session VALUES ('cam-1', 'u', 60, 1e9)")
        connection.execute(
            "INSERT INTO subscription VALUES ('cam-1', 'a/+', 1, 0, 0, 3), ('cam-1', '$share/g/b', 1, 0, 0, 0)"
        )
        connection.execute("INSERT INTO delivery VALUES (2, 'cam-1', 1, 1, 0, '3,4', '$share/g/b', 7)")
        connection.execute("INSERT INTO delivery VALUES (3, 'cam-1', NULL, 2, 0, '', '', 8)")
        connection.execute("INSERT INTO incoming VALUES ('cam-1', 9)")
        connection.execute("INSERT INTO retained VALUES ('a/b', 1, 1)")


def _use_sessions(path: Path) -> None:
    connection, kept = open_database(path, False, load_sessions)
    with closing(connection):
        restore(kept, Router(EmbeddedSettings(), 0.0), 0.0)
