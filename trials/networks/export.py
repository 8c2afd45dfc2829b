"""Export a trial's network to a file, and compare the masks of two trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trials import compact
from trials.compact import silent, slices, spread
from trials.errors import UserError, listed
from trials.networks.onnx import export_onnx
from trials.networks.stored import architecture_in, checkpoint, inputs_of, network, network_of
from trials.storage import files
from trials.storage.place import Place

FORMS = ("dense", "prune", "compact", "onnx")


def export(trial: Place, to: Path, form: str = "dense") -> None:
    """Write a trial's last committed network to a file.

    All forms but ``onnx`` can be read by ``torch.load(weights_only=True)``.

    Args:
        trial: the trial's folder.
        form: ``dense``: a state dict with zeros where the mask is off. ``prune``: a state dict with every masked weight
            as ``weight_orig`` and ``weight_mask``, as ``torch.nn.utils.prune`` names them. ``compact``: physically
            smaller, without the filters that change nothing, for :func:`trials.compact.load`. ``onnx``: the compact
            network as ONNX.

    Raises:
        UserError: the folder holds no trial with a checkpoint, or ``to`` cannot be written.
    """
    write = _writer(trial, form)
    try:
        write(to)
    except OSError as error:
        raise UserError(f"--to is {str(to)!r}, but must be a file that can be written ({error})") from None


def _writer(trial: Place, form: str) -> Callable[[Path], None]:
    """Read the trial's network; return what writes it to a file in ``form``."""
    if form not in ("compact", "onnx"):
        state = _state(network_of(trial), form)
        return lambda to: files.save(to, state)
    architecture, net = network(trial)
    net.shrink(silent(net.model), "filter")
    if form == "compact":
        return lambda to: compact.save(to, architecture, net.kept, net.model.state_dict())
    return lambda to: export_onnx(net.model, architecture.shape, to, inputs_of(trial))


def _state(net: Mapping[str, Any], form: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = dict(net["model"])
    if form == "prune":
        for name, mask in net["masks"].items():
            weight = state.pop(name)
            state |= {f"{name}_orig": weight, f"{name}_mask": mask.to(weight.dtype)}
    return state


def compare(one: Place, other: Place) -> list[dict[str, Any]]:
    """Intersection over union of two trials' masks, one row per layer and one over all layers (layer ``all``).

    Weights are compared where they stand in the whole model, also of compact networks: what these lack is not kept.
    Two masks that keep nothing have IoU 1.

    Raises:
        UserError: a folder holds no trial with masks, or the masks differ in names or shapes.
    """
    masks = [_whole_masks(folder) for folder in (one, other)]
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


def _whole_masks(trial: Place) -> dict[str, Tensor]:
    """A trial's masks in the shapes of the whole model, False for weights that a compact network lacks.

    Raises:
        UserError: the folder holds no trial with masks.
    """
    content = checkpoint(trial)
    masks: dict[str, Tensor] = content["net"]["masks"]
    if not masks:
        raise UserError(f"{trial.name} has no mask to compare: name a trial that prunes by a mask")
    kept = content["net"].get("kept")
    if not kept:
        return masks
    model = architecture_in(trial, content).build()
    cut = slices(model, kept)
    return {name: spread(mask, model.get_parameter(name).shape, cut.get(name, {})) for name, mask in masks.items()}
