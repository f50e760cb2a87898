"""State dicts out of torch files of other code; nothing that a file brings is run."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megace2_iot.datasets.unpickle import DAMAGE

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, or of one that lies under a usual key, by name.

    Raises ValueError, with what to do, for a pickled module and for any other file without a state dict.
    """
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):
            raise ValueError(f"{path} is not a torch file of weights") from error
        raise ValueError(
            f"{path} holds a pickled module, and loading it would run its code. Where you trust it, with the code that "
            f"made it: torch.save(torch.load('{path.name}', weights_only=False).state_dict(), 'state.pt')"
        ) from error
    except (OSError, RuntimeError, struct.error, *DAMAGE) as error:
        if isinstance(error, OSError) and error.filename is not None:  # there is no such file, or it may not be read
            raise
        raise ValueError(f"{path} is not a torch file of weights: {error}") from error
    while isinstance(loaded, Mapping) and (inner := next((k for k in _WRAPPERS if k in loaded), None)):
        loaded = loaded[inner]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise ValueError(f"{path} holds no state dict of tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}
