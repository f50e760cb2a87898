"""Every method of the paper's tables besides Mega-CE2 itself, by name: baselines and ablations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from megace2_iot.features import Modality
from megace2_iot.model.ablation import ABLATIONS, MULT_RECIPE
from megace2_iot.model.baselines import METHODS, RECIPES
from megace2_iot.model.method import Method, Recipe

ALL: Mapping[str, Callable[[Mapping[Modality, int]], Method]] = {**METHODS, **ABLATIONS}


def make(name: str, dims: Mapping[Modality, int], seed: int) -> Method:
    """A new model whose weights follow from `seed` alone; torch's own generator is left as it was.

    Raises ValueError for an unknown name.
    """
    if name not in ALL:
        raise ValueError(f"no method {name!r}: choose one of {', '.join(ALL)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ALL[name](dims)


def recipe(name: str) -> Recipe:
    """How the named method is trained where nothing else is asked for. Raises ValueError for an unknown name."""
    if name not in ALL:
        raise ValueError(f"no method {name!r}: choose one of {', '.join(ALL)}")
    return RECIPES.get(name, MULT_RECIPE)
