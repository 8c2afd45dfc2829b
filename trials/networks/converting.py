"""Convert a file with pickled objects, such as GReg's checkpoints, into one that ``source_net`` reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trials.compact import Architecture, Channels, Kept, dependencies
from trials.errors import UserError, exact
from trials.models import without_values
from trials.models.imagenet_resnet import TORCHVISION
from trials.networks.fitting import fitted, own_names
from trials.networks.formats import Weights, printable
from trials.storage.scratch import scratch_folder

PROGRAM = Path(__file__).with_name("unpickling.py")
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TEMP", "SYSTEMROOT")
"""Variables of the environment that the process that unpickles gets; keys and tokens are none of them."""


@dataclass(frozen=True)
class Taken:
    """What was taken out of a file.

    Attributes:
        tensors: by the names that they have in the file.
        masks: by layer or weight, as the file names them.
        kept_wg, pruned_wg: indices of the groups that GReg's code kept and removed, by layer.
        objects: names of the classes that stood in the file.
    """

    tensors: dict[str, Tensor]
    masks: dict[str, Tensor]
    kept_wg: dict[str, list[int]]
    pruned_wg: dict[str, list[int]]
    objects: tuple[str, ...]


def take_out(path: Path, seconds: float) -> Taken:
    """Take the tensors out of a file, in a process of its own (``unpickling.py``) that has ``seconds`` for it.

    Raises:
        UserError: the file is refused or damaged, or takes too long.
    """
    what = f"FILE is {str(path)!r}"
    if not path.is_file():
        raise UserError(f"{what}, but must be a file that can be read: give the path of one")
    with scratch_folder() as folder:
        out = folder / "out.pt"
        command = [sys.executable, "-I", str(PROGRAM), str(path.absolute()), str(out)]
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**environment, "CUDA_VISIBLE_DEVICES": ""},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{what}, which was not read within {exact(seconds)} s: give more --seconds") from None
        said = _said(done.stdout)
        if done.returncode or "objects" not in said:
            reason = said.get("error") or f"ended the process that read it (exit code {done.returncode})"
            raise UserError(f"{what}, but {printable(reason)}: nothing was written")
        found = torch.load(out, map_location="cpu", weights_only=True)
    objects = tuple(map(printable, said["objects"]))
    return Taken(found["state_dict"], found["masks"], found["kept_wg"], found["pruned_wg"], objects)


def _said(output: bytes) -> dict[str, Any]:
    try:
        said = json.loads(output.decode().strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return said if isinstance(said, dict) else {}


def as_it_stands(taken: Taken) -> dict[str, Any]:
    """The content of a file with the state dict as it stands, and with its masks by weight, if there are any."""
    masks = _named_masks(taken)
    return {"state_dict": taken.tensors, **({"masks": masks} if masks else {})}


def _paired(taken: Taken) -> Taken:
    """The same with weights and masks in place of weight_orig and weight_mask, as torch.nn.utils.prune has them."""
    found = taken.tensors
    bases = [name.removesuffix("_mask") for name in found if name.endswith("_mask")]
    pairs = {f"{name}_orig": name for name in bases if f"{name}_orig" in found}
    masks = {name: found[f"{name}_mask"] for name in pairs.values()}
    tensors = {  # in the file's order
        pairs.get(name, name): tensor * masks[pairs[name]] if name in pairs else tensor
        for name, tensor in found.items()
        if name.removesuffix("_mask") not in masks
    }
    return replace(taken, tensors=tensors, masks={**taken.masks, **masks})


def _named_masks(taken: Taken) -> dict[str, Tensor]:
    """The masks by the weights' names, in their shapes. GReg's code names the layers."""
    found = {}
    for name, mask in taken.masks.items():
        weight = name if name in taken.tensors else f"{name}.weight"
        if weight not in taken.tensors or taken.tensors[weight].numel() != mask.numel():
            raise UserError(f"FILE holds a mask of {printable(name)}, which fits no weight: nothing was written")
        found[weight] = mask.reshape(taken.tensors[weight].shape)
    return found


def for_model(taken: Taken, name: str, image_size: int | None) -> tuple[dict[str, Any], bool]:
    """The content of a file for a model, as a compact network if its layers have fewer rows.

    Args:
        image_size: side of its images in pixels; None for 224 of ResNet18, ResNet34 and ResNet50 and 32 of others.

    Returns:
        Also whether the file says which rows of the whole network a compact one has. If it does not, they are numbered
        from 0: which function the network computes does not depend on it.

    Raises:
        UserError: the network is not of that model.
    """
    what, taken = f"--model is {name!r}", _paired(taken)
    classes, channels = _ends(taken.tensors, name)
    try:
        model = without_values(name, num_classes=classes, in_channels=channels)
    except Exception as error:  # noqa: BLE001  whatever a model's own code raises
        reason = " ".join(str(error).split())
        raise UserError(f"{what}, but cannot be built for {classes} classes and {channels} channels ({reason}), as "
                        "FILE has them: give the model it was saved from") from None  # fmt: skip
    own = model.state_dict()
    tensors = own_names(taken.tensors, own, what)
    if all(tensors[n].shape == own[n].shape for n in own if n in tensors):
        fitted(Weights(taken.tensors, masks=_named_masks(taken), masks_key="masks"), model, what, name)
        return as_it_stands(taken), True
    graph = dependencies(model)
    smaller = [n for n in graph if n in tensors and tensors[n].shape[:1] < own[n].shape[:1]]
    kept, said = _kept(smaller, tensors, own, taken, graph)
    side = image_size or (224 if name in TORCHVISION else 32)
    architecture = Architecture(name, classes, channels, (side, side)).record()
    masks = own_names(_named_masks(taken), own, what)
    fitted(Weights(tensors, architecture, kept, masks, "masks" if masks else ""), model, what, name)
    content = {"architecture": architecture, "kept": kept, "state_dict": tensors}
    return {**content, **({"masks": masks} if masks else {})}, said


def _ends(tensors: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """Number of classes and of input channels: rows of the last weight, and columns of the first."""
    weights = [tensor for key, tensor in tensors.items() if key.endswith("weight") and tensor.dim() in (2, 4)]
    if not weights:
        raise UserError(f"--model is {name!r}, but FILE holds no weight of a layer: give the file of a network")
    first = weights[0]
    return int(weights[-1].shape[0]), int(first.shape[1]) if first.dim() == 4 else 1


def _kept(
    smaller: Sequence[str],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    taken: Taken,
    graph: Mapping[str, Channels],
) -> tuple[Kept, bool]:
    """The rows of the whole network that the smaller layers have, and whether the file says so for all of them."""
    indices = {n.removeprefix("module."): (rows, taken.pruned_wg.get(n, [])) for n, rows in taken.kept_wg.items()}
    filters = all(len(indices.get(n.removesuffix(".weight"), ((), ()))[0]) == len(tensors[n]) for n in smaller)
    kept, said = {}, True
    for name in smaller:
        layer = name.removesuffix(".weight")
        source = layer if filters else next(iter(graph[name].readers), layer)  # else channels of what reads them
        rows, gone = indices.get(source.removesuffix(".weight"), ([], []))
        whole = len(own[name])
        if sorted({*rows, *gone}) == list(range(whole)) and rows == sorted(rows) and len(rows) == len(tensors[name]):
            kept[name] = torch.tensor(rows)
        else:
            kept[name], said = torch.arange(len(tensors[name])), False
    return kept, said
