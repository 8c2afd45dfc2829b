"""Load weights from an external checkpoint file into a model."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trials.errors import UserError

_NUMBERS = [np.dtype, np.float64, np.dtypes.Float64DType, type(np.dtype(np.float64))]
"""Types to allow in torch's weights-only loader, because old checkpoints store the learning rate as a numpy number."""


def load_into(model: nn.Module, path: Path, field: str = "source_net") -> str:
    """Load weights from a checkpoint file into a model; returns 16 hex digits of the file's SHA-256.

    Reads a state dict, or a dict with one under ``state_dict`` (BiP's checkpoint.pth.tar). Strips DataParallel's prefix
    ``module.`` and skips the scores of masked layers (``popup_scores``). ``field`` is the config field or option that
    named the file, for messages.

    Raises:
        UserError: the file cannot be read or is no checkpoint, or its weights do not fit the model.
    """
    try:
        content = path.read_bytes()
        with torch.serialization.safe_globals([_scalar(), *_NUMBERS]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{field} is {str(path)!r}, but must be a file that can be read ({error})") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{field} is {str(path)!r}, but must be a checkpoint of tensors ({reason})") from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{field} is {str(path)!r}, but must hold a state dict, or one under 'state_dict'")
    state = {name.removeprefix("module."): value for name, value in state.items() if not name.endswith("popup_scores")}
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
    for names, what in (
        (missing, "lacks"),
        (unexpected, "has weights unknown to the model:"),
        (shapes, "has in other shapes"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(
                f"{field} {str(path)!r} {what} {', '.join(names[:3])}{more}: give the model it was saved from"
            )
    model.load_state_dict({**own, **state})
    return hashlib.sha256(content).hexdigest()[:16]


def _scalar() -> Any:
    from numpy._core.multiarray import scalar

    return scalar
