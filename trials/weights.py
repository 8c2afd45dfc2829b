"""Weights in and out: what a trial came to, for others to load; what others have trained, for a trial to start from."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trials import files
from trials.errors import DamagedFile, UserError
from trials.ledger import TrialFolder

FORMS = ("dense", "prune")

_NUMBERS = [np.dtype, np.float64, np.dtypes.Float64DType, type(np.dtype(np.float64))]
"""What torch's safe loader must let through for old checkpoints: a learning rate stored as a numpy number."""


def export(trial: Path, to: Path, form: str = "dense") -> None:
    """Write the network a trial has come to as a state dict that ``torch.load(weights_only=True)`` reads.

    Args:
        trial: the trial's folder.
        form: ``dense``: the model's own names, zeros where the mask is off. ``prune``: every masked weight as
            ``weight_orig`` and ``weight_mask``, as ``torch.nn.utils.prune`` names them.

    Raises:
        UserError: the folder holds no trial with a checkpoint, or ``to`` cannot be written.
    """
    net = _network(trial)
    state: dict[str, Tensor] = dict(net["model"])
    if form == "prune":
        for name, mask in net["masks"].items():
            weight = state.pop(name)
            state |= {f"{name}_orig": weight, f"{name}_mask": mask.to(weight.dtype)}
    try:
        files.save(to, state)
    except OSError as error:
        raise UserError(f"--to is {str(to)!r}, but must be a file that can be written ({error})") from None


def compare(one: Path, other: Path) -> list[dict[str, Any]]:
    """How alike the masks of two trials are: |and|/|or| per layer that both mask, and over all (layer ``all``).

    Two masks that are both empty have IoU 1.

    Raises:
        UserError: a folder holds no trial with masks, or the two mask weights of other names or shapes.
    """
    masks = [_network(folder)["masks"] for folder in (one, other)]
    shapes = [{name: tuple(mask.shape) for name, mask in m.items()} for m in masks]
    if not masks[0] or shapes[0] != shapes[1]:
        different = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))[:3]
        raise UserError(f"{one.name} and {other.name} must have masks of the same weights, but differ in {different}")
    rows = []
    for name in masks[0]:
        both, any_ = int((masks[0][name] & masks[1][name]).sum()), int((masks[0][name] | masks[1][name]).sum())
        rows.append({"layer": name.removesuffix(".weight"), "both": both, "either": any_})
    rows.append({"layer": "all", **{key: sum(row[key] for row in rows) for key in ("both", "either")}})
    return [{**row, "iou": row["both"] / row["either"] if row["either"] else 1.0} for row in rows]


def _network(trial: Path) -> dict[str, Any]:
    folder = TrialFolder(trial)
    try:
        state = folder.state()
        checkpoint = folder.checkpoint(state.commits[-1]) if state is not None and state.commits else {}
    except DamagedFile as damage:
        raise UserError(f"{damage}: run the trial again, it repairs what can be repaired") from None
    if not checkpoint:
        raise UserError(f"{str(trial)!r} must be the folder of a trial that has committed a checkpoint, but has none")
    return dict(checkpoint["net"])


def load_into(model: nn.Module, path: Path) -> str:
    """Load weights that others have trained into a model; returns a hash of the file.

    Reads a state dict, or a dict with one under ``state_dict`` (BiP's checkpoint.pth.tar); prefixes of DataParallel and
    scores of masked layers are left out.

    Raises:
        UserError: it is no such file, or its weights are not this model's.
    """
    try:
        content = path.read_bytes()
        with torch.serialization.safe_globals([_scalar(), *_NUMBERS]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"source_net is {str(path)!r}, but must be a file that can be read ({error})") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"source_net is {str(path)!r}, but must be a checkpoint of tensors ({reason})") from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"source_net is {str(path)!r}, but must hold a state dict, or one under 'state_dict'")
    state = {name.removeprefix("module."): value for name, value in state.items() if not name.endswith("popup_scores")}
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
    for names, what in (
        (missing, "lacks"),
        (unexpected, "has, unknown to the model,"),
        (shapes, "has in other shapes"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(
                f"source_net {str(path)!r} {what} {', '.join(names[:3])}{more}: give the model it was saved from"
            )
    model.load_state_dict({**own, **state})
    return hashlib.sha256(content).hexdigest()[:16]


def _scalar() -> Any:
    from numpy._core.multiarray import scalar

    return scalar
