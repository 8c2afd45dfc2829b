"""Export a trial's network to a file, and compare the masks of two trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trials import compact
from trials.compact import slices, spread
from trials.errors import UserError, listed
from trials.networks.onnx import export_onnx, needed_libraries
from trials.networks.stored import checkpoint, inputs_of, network, whole_masks, whole_model
from trials.storage import files
from trials.storage.place import Place
from trials.training.compact_form import compact_form

FORMS = ("dense", "prune", "compact", "onnx")


def export(trial: Place, to: Path, form: str = "dense") -> None:
    """Write a trial's last committed network to a file.

    All forms but ``onnx`` can be read by ``torch.load(weights_only=True)``.

    Args:
        trial: the trial's folder.
        form: ``dense``: a state dict of the whole model, with zeros where a mask is off or a smaller network has
            nothing. ``prune``: the same, with every such weight as ``weight_orig`` and ``weight_mask``, as
            ``torch.nn.utils.prune`` names them. ``compact``: physically smaller, without the filters that change
            nothing, with its masks, for :func:`trials.compact.load` and :func:`trials.compact.load_masks`. ``onnx``:
            the compact network as ONNX.

    Raises:
        UserError: the folder holds no trial with a checkpoint, ``to`` cannot be written, or a library that ``onnx``
            needs is not installed.
    """
    write = _writer(trial, form)
    try:
        write(to)
    except OSError as error:
        raise UserError(f"--to is {str(to)!r}, but must be a file that can be written ({error})") from None


def _writer(trial: Place, form: str) -> Callable[[Path], None]:
    """Read the trial's network; return what writes it to a file in ``form``."""
    if form not in ("compact", "onnx"):
        state = _whole_state(trial, with_masks=form == "prune")
        return lambda to: files.save(to, state)
    if form == "onnx":
        needed_libraries()
    architecture, net = network(trial)
    smaller = compact_form(net)
    if form == "compact":
        masks = {name: mask for name, mask in smaller.masks.items() if not mask.all()}
        return lambda to: compact.save(to, architecture, smaller.kept, smaller.model.state_dict(), masks)
    return lambda to: export_onnx(smaller.model, architecture.shape, to, inputs_of(trial))


def _whole_state(trial: Place, *, with_masks: bool) -> dict[str, Tensor]:
    """A trial's state dict in the shapes of the whole model, its masked weights in pairs if ``with_masks``."""
    content = checkpoint(trial)
    state: dict[str, Tensor] = dict(content["net"]["model"])
    model = whole_model(trial, content)
    if model is not None:
        cut = slices(model, content["net"]["kept"])
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        state |= {name: _spread(name, state[name], shapes[name], cut[name]) for name in state if name in cut}
    for name, mask in whole_masks(trial, content).items() if with_masks else ():
        weight = state.pop(name)
        state |= {f"{name}_orig": weight, f"{name}_mask": mask.to(weight.dtype)}
    return state


def _spread(name: str, tensor: Tensor, shape: torch.Size, cut: dict[int, Tensor]) -> Tensor:
    """A tensor of a compact network in its shape in the whole model: what was cut is 0, and a variance 1."""
    whole = spread(tensor, shape, cut)
    if name.endswith(".running_var"):
        whole[~spread(torch.ones_like(tensor, dtype=torch.bool), shape, cut)] = 1
    return whole


def compare(one: Place, other: Place) -> list[dict[str, Any]]:
    """Intersection over union of two trials' masks, one row per layer and one over all layers (layer ``all``).

    Weights are compared where they stand in the whole model, also of compact networks: what these lack is not kept.
    Two masks that keep nothing have IoU 1.

    Raises:
        UserError: a folder holds no trial with masks, or the masks differ in names or shapes.
    """
    masks = [_masks(folder) for folder in (one, other)]
    shapes = [{name: tuple(mask.shape) for name, mask in m.items()} for m in masks]
    if shapes[0] != shapes[1]:
        different = listed(sorted({name for name, _ in set(shapes[0].items()) ^ set(shapes[1].items())}))
        raise UserError(
            f"{one.name} and {other.name} must have masks of the same weights, but differ in {different}: compare "
            "trials of one model that prune the same layers"
        )
    rows: list[dict[str, Any]] = []
    for name in masks[0]:
        both, any_ = int((masks[0][name] & masks[1][name]).sum()), int((masks[0][name] | masks[1][name]).sum())
        rows.append({"layer": name.removesuffix(".weight"), "both": both, "either": any_})
    rows.append({"layer": "all", **{key: sum(row[key] for row in rows) for key in ("both", "either")}})
    return [{**row, "iou": row["both"] / row["either"] if row["either"] else 1.0} for row in rows]


def _masks(trial: Place) -> dict[str, Tensor]:
    """A trial's masks in the shapes of the whole model.

    Raises:
        UserError: the folder holds no trial with masks.
    """
    content = checkpoint(trial)
    masks = content["net"]["masks"]
    if not masks:
        raise UserError(f"{trial.name} has no mask to compare: name a trial that prunes by a mask")
    return {name: mask for name, mask in whole_masks(trial, content).items() if name in masks}
