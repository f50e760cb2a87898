"""A cloud's aggregation on three numbers, without a broker: who reads a test sees every value."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cloud_aggregator.checks import CheckSettings
from cloud_aggregator.folding import Folding, Outcome
from cloud_aggregator.settings import CloudSettings
from cloud_aggregator.store import Store, UpdateRow
from megace2_iot.blobs import digest
from megace2_iot.parameters import Layout
from megace2_iot.tensors import decode_tensors, encode_tensors

LAYOUT = Layout({"a.x": (1,), "b.x": (2,)})
LOOSE = CheckSettings(max_norm_ratio=0, max_first_norm=0, max_examples=0, max_lag=0)


def made(
    delta: Any,
    *,
    edge: str = "e1",
    base: int = 1,
    n: float = 1,
    name: str = "",
    codec: str = "float32",
    family: str = "f",
) -> tuple[UpdateRow, bytes]:
    """An update as it is journalled; `name` tells those apart that are otherwise equal."""
    body = delta if isinstance(delta, bytes) else np.float32(delta).tobytes()
    id = digest(f"{edge} {base} {n} {name}".encode() + body)
    return UpdateRow(id, edge, family, base, 1, {"a": n, "b": n}, codec, digest(body), len(body), 1e9), body


class Cloud:
    """A store and what folds into it."""

    def __init__(self, store: Store, checks: CheckSettings = LOOSE, rule: str = "latched", **more: Any) -> None:
        fields = {"rule": rule, "checks": checks, **more}
        self.store, self.folding = store, Folding(CloudSettings.model_validate(fields), store)

    @property
    def version(self) -> int:
        return self.store.latest("f").version

    def take(self, delta: Any, **about: Any) -> tuple[Outcome, str]:
        """Journal and judge an update; its outcome and id."""
        row, body = made(delta, **about)
        self.store.journal.receive(row, body)
        return self.folding.take(row, body), row.id

    def release(self, update_id: str) -> Outcome:
        """Fold a held one in by hand."""
        row, _ = self.store.journal.find(update_id) or (None, None)
        assert row is not None
        return self.folding.take(row, self.store.journal.body_of(row.sha256), by_hand=True)

    def model(self, version: int | None = None) -> list[float]:
        blob = self.store.release("f", version or self.version)
        assert blob is not None
        return np.concatenate([t.reshape(-1) for _, t in sorted(decode_tensors(blob)[0].items())]).tolist()


@contextlib.contextmanager
def cloud(folder: Path, checks: CheckSettings = LOOSE, **more: Any) -> Iterator[Cloud]:
    """A cloud whose release 1 is (1, 1, 1)."""
    with Store.open(folder, durable=False) as store:
        if store.family() is None:
            base = encode_tensors(LAYOUT.unflatten(np.ones(3, np.float32)), {})
            store.begin_family("f", "{}", base, b"stem")
        yield Cloud(store, checks, **more)
