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

from trials import compact
from trials.compact import Architecture, silent
from trials.errors import DamagedFile, UserError
from trials.models.imagenet_resnet import TORCHVISION
from trials.networks.onnx import export_onnx
from trials.storage import files
from trials.storage.place import Place
from trials.storage.trial_folder import TrialFolder
from trials.training.net import Net

FORMS = ("dense", "prune", "compact", "onnx")

_NUMBERS = [np.dtype, np.float64, np.dtypes.Float64DType, type(np.dtype(np.float64))]
"""What torch's safe loader must let through for old checkpoints: a learning rate stored as a numpy number."""


def export(trial: Place, to: Path, form: str = "dense") -> None:
    """Write the network a trial has come to as a state dict that ``torch.load(weights_only=True)`` reads.

    Args:
        trial: the trial's folder.
        form: ``dense``: the model's own names, zeros where the mask is off. ``prune``: every masked weight as
            ``weight_orig`` and ``weight_mask``, as ``torch.nn.utils.prune`` names them. ``compact``: without the
            filters that change nothing, for :func:`trials.compact.load`. ``onnx``: the same for other runtimes.

    Raises:
        UserError: the folder holds no trial with a checkpoint, or ``to`` cannot be written.
    """
    try:
        if form in ("compact", "onnx"):
            architecture, net = network(trial)
            net.shrink(silent(net.model), "filter")
            if form == "compact":
                compact.save(to, architecture, net.kept, net.model.state_dict())
            else:
                export_onnx(net.model, architecture.shape, to)
        else:
            files.save(to, _state(network_of(trial), form))
    except OSError as error:
        raise UserError(f"--to is {str(to)!r}, but must be a file that can be written ({error})") from None


def _state(net: Mapping[str, Any], form: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = dict(net["model"])
    if form == "prune":
        for name, mask in net["masks"].items():
            weight = state.pop(name)
            state |= {f"{name}_orig": weight, f"{name}_mask": mask.to(weight.dtype)}
    return state


def compare(one: Place, other: Place) -> list[dict[str, Any]]:
    """How alike the masks of two trials are: |and|/|or| per layer that both mask, and over all (layer ``all``).

    Two masks that are both empty have IoU 1.

    Raises:
        UserError: a folder holds no trial with masks, or the two mask weights of other names or shapes.
    """
    masks = [checkpoint(folder)["net"]["masks"] for folder in (one, other)]
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


def network(trial: Place) -> tuple[Architecture, Net]:
    """The network a trial has come to, on the CPU, made smaller as it was, and what it is built from.

    Raises:
        UserError: the folder holds no trial with a checkpoint, or one of a version that did not say what it is of.
    """
    content = checkpoint(trial)
    if "architecture" not in content:
        raise UserError(f"{str(trial)!r} was committed by an older version, which kept no architecture: run it again")
    architecture = Architecture.of(content["architecture"])
    net = Net(architecture.build())
    net.load_state_dict(content["net"])
    return architecture, net


def network_of(trial: Place) -> dict[str, Any]:
    """The state of the network a trial has come to: ``model``, ``masks``, ``snapshots``. Raises as ``checkpoint``."""
    return dict(checkpoint(trial)["net"])


def checkpoint(trial: Place) -> dict[str, Any]:
    """A trial's last checkpoint.

    Raises:
        UserError: the folder holds none.
    """
    folder = TrialFolder(trial)
    try:
        state = folder.state()
        content = folder.checkpoint(state.commits[-1]) if state is not None and state.commits else {}
    except DamagedFile as damage:
        raise UserError(f"{damage}: run the trial again, it repairs what can be repaired") from None
    if not content:
        raise UserError(f"{str(trial)!r} must be the folder of a trial that has committed a checkpoint, but has none")
    return content


def source_path(source_net: str, model: str) -> Path:
    """The file that ``source_net`` names; ``torchvision`` is downloaded once, to where torch.hub keeps such files.

    Raises:
        UserError: it is not there and cannot be downloaded.
    """
    if source_net != "torchvision":
        return Path(source_net).expanduser()
    from torchvision.models import get_weight

    url: str = get_weight(TORCHVISION[model]).url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = path.stem.rpartition("-")[2]
        try:
            torch.hub.download_url_to_file(url, str(path), digest, progress=False)
        except (OSError, RuntimeError) as error:  # no network (URLError is an OSError), or a damaged file
            raise UserError(
                f"source_net is 'torchvision', but {url} cannot be downloaded ({error}): put it at {str(path)!r}"
            ) from None
    return path


def load_into(model: nn.Module, path: Path, field: str = "source_net") -> str:
    """Load weights that others have trained into a model; returns a hash of the file.

    Reads a state dict, or a dict with one under ``state_dict`` (BiP's checkpoint.pth.tar); prefixes of DataParallel and
    scores of masked layers are left out. ``field`` is what the user called the file, for messages.

    Raises:
        UserError: it is no such file, or its weights are not this model's.
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
        (unexpected, "has, unknown to the model,"),
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
