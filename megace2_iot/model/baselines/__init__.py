"""The methods that the paper compares with, each in its own file, and the recipe that each is trained by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from megace2_iot.features import Modality
from megace2_iot.model.baselines.ef_lstm import EfLstm, EfLstmConfig
from megace2_iot.model.baselines.lf_lstm import LfLstm, LfLstmConfig
from megace2_iot.model.baselines.mctn import Mctn, MctnConfig
from megace2_iot.model.baselines.raven import Raven, RavenConfig
from megace2_iot.model.baselines.v2em_lite import V2emLite, V2emLiteConfig
from megace2_iot.model.method import Method, Recipe

Dims = Mapping[Modality, int]

METHODS: Mapping[str, Callable[[Dims], Method]] = {
    "ef_lstm": lambda dims: EfLstm(EfLstmConfig(dims=dims)),
    "lf_lstm": lambda dims: LfLstm(LfLstmConfig(dims=dims)),
    "mctn": lambda dims: Mctn(MctnConfig(dims=dims)),
    "raven": lambda dims: Raven(RavenConfig(dims=dims)),
    "v2em_lite": lambda dims: V2emLite(V2emLiteConfig(dims=dims)),
}

RECIPES: Mapping[str, Recipe] = {
    "ef_lstm": Recipe(learning_rate=1e-3, batch_size=32, epochs=40, weight_decay=5e-3, patience=8),
    "lf_lstm": Recipe(learning_rate=1e-3, batch_size=32, epochs=40, weight_decay=0.01),
    "mctn": Recipe(learning_rate=1e-4, batch_size=32, epochs=200, patience=20),
    # Its code trains 500 epochs and keeps the best by validation rows, which most data here do not have.
    "raven": Recipe(learning_rate=1e-3, batch_size=20, epochs=40, loss="mse"),
    "v2em_lite": Recipe(learning_rate=1e-4, batch_size=16, epochs=40),
}
