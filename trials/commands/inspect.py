"""``python -m trials inspect``: what is left of each layer of stored networks, of trials or of files of weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trials.analysis import retention
from trials.commands.arguments import command_parser, note_unfinished
from trials.commands.profile import profile_text
from trials.compact import Architecture
from trials.errors import UserError
from trials.networks.formats import Weights, read_weights
from trials.networks.named_files import read_file
from trials.networks.stored import architecture_in, checkpoint
from trials.regrowth.channels import channel_sparsity, matched_filters
from trials.sparsity import prunable
from trials.storage.packed.reading import is_trial
from trials.storage.place import Place
from trials.storage.sweep_path import trial_place

LEFT = {"mask": "counted in its mask", "compact": "of a compact network: rows and columns", "values": "not zero"}
"""By the column ``by``, what counts as kept."""


def inspect(network: Place) -> list[dict[str, Any]]:
    """Return a row per prunable weight of a trial's network or of a file, and one of all (layer ``all``).

    Columns: ``layer``; ``shape`` as stored; ``total`` weights of the dense layer; ``kept``; ``pruned``; ``sparsity``;
    ``by``, what counts as kept (``LEFT``). A file without a mask holds no other sign of pruning than zeros.

    Raises:
        UserError: ``network`` is neither a trial with a checkpoint nor a file of weights.
    """
    rows = [_row(name, *found) for name, found in _weights(network).items()]
    if not rows:
        raise UserError(f"{str(network)!r} holds no weight of a convolution or a linear layer: name another file")
    total, kept = sum(row["total"] for row in rows), sum(row["kept"] for row in rows)
    ways = {row["by"] for row in rows}
    by = ways.pop() if len(ways) == 1 else "mixed"
    return [*rows, _figures("all", "", total, kept, by)]


def filters_of(network: Place, dense: Place) -> list[dict[str, Any]]:
    """Return a row per convolution of a narrowed network: which filters of the dense one it still has.

    Each filter is matched to the dense one of the highest cosine similarity, and every dense filter is used once; exact
    for filters that were not trained since they were removed from their layer.

    Raises:
        UserError: the two networks have no convolution in common.
    """
    narrow, whole = _weights(network), _weights(dense)
    rows = []
    for name, (weight, _, _) in narrow.items():
        other = whole[name][0] if name in whole else None
        if weight.dim() != 4 or other is None or other.dim() != 4 or len(weight) > len(other):
            continue
        found = sorted(matched_filters(weight.detach(), other.detach()))
        layer = name.removesuffix(".weight")
        rows.append({"layer": layer, "filters": len(found), "of": len(other), "kept": found})
    if not rows:
        raise UserError(
            f"--dense is {str(dense)!r}, but no convolution of {str(network)!r} has a name there and at most as many "
            "filters: give the dense network that it was made from"
        )
    return rows


def _weights(network: Place) -> dict[str, tuple[Tensor, Tensor | None, int]]:
    """Weight as stored, its mask, and the number of weights of the dense layer, by name."""
    if network.is_dir() or is_trial(network):
        content = checkpoint(network)
        net = content["net"]
        architecture = architecture_in(network, content) if net.get("kept") else None
        return _counted(net["model"], net["masks"], architecture)
    what = f"the network is {str(network)!r}"
    weights = read_weights(read_file(network, what), what)
    architecture = None if weights.architecture is None else Architecture.of(weights.architecture)
    tensors, masks = _split(weights)
    return _counted(tensors, masks, architecture)


def _split(weights: Weights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A file's tensors and masks, also those beside the tensors as torch.nn.utils.prune names them."""
    tensors, masks = dict(weights.tensors), dict(weights.masks)
    for name in [name for name in tensors if name.endswith("_orig") and f"{name[:-5]}_mask" in tensors]:
        weight, mask = tensors.pop(name), tensors.pop(f"{name[:-5]}_mask")
        tensors[name[:-5]], masks[name[:-5]] = weight * mask, mask
    return tensors, masks


def _counted(
    tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor], architecture: Architecture | None
) -> dict[str, tuple[Tensor, Tensor | None, int]]:
    """The weights of convolutions and linear layers: of the architecture's model, or by their name and dimensions."""
    if architecture is None:
        names = [name for name, t in tensors.items() if name.rpartition(".")[2] == "weight" and t.dim() in (2, 4)]
        return {name: (tensors[name], masks.get(name), tensors[name].numel()) for name in names}
    dense = prunable(architecture.build(values=False))
    return {name: (tensors[name], masks.get(name), weight.numel()) for name, weight in dense.items()}


def _row(name: str, weight: Tensor, mask: Tensor | None, total: int) -> dict[str, Any]:
    if mask is not None:
        kept, by = int(torch.count_nonzero(mask)), "mask"
    elif weight.numel() < total:
        kept, by = int(torch.count_nonzero(weight)), "compact"
    else:
        kept, by = int(torch.count_nonzero(weight)), "values"
    return _figures(name.removesuffix(".weight"), "x".join(map(str, weight.shape)), total, kept, by)


def _figures(layer: str, shape: str, total: int, kept: int, by: str) -> dict[str, Any]:
    sparsity = 1 - kept / total if total else math.nan
    return {
        "layer": layer,
        "shape": shape,
        "total": total,
        "kept": kept,
        "pruned": total - kept,
        "sparsity": sparsity,
        "by": by,
    }


def inspect_command(arguments: list[str]) -> int:
    """Run ``inspect NETWORK [NETWORK...]``; returns the exit code."""
    parser = command_parser(
        "inspect",
        description="Shapes, kept weights and sparsity of stored networks, by layer.",
        epilog=f"The column by says what is kept: {'; '.join(f'{by}: {left}' for by, left in LEFT.items())}.",
    )
    parser.add_argument("networks", type=trial_place, nargs="+", metavar="NETWORK", help="a trial's folder, or a file")
    parser.add_argument("--dense", type=trial_place, metavar="NETWORK",
                        help="list instead which filters of this dense network the narrowed ones have")  # fmt: skip
    parser.add_argument("--densities", action="store_true", help="of trials: a row per layer, a column per trial")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, in a list by network")
    options = parser.parse_args(arguments)
    code = note_unfinished([*options.networks, *([options.dense] if options.dense else [])])
    if options.densities:
        _print_densities(options.networks, options.json)
        return code
    read = (lambda network: filters_of(network, options.dense)) if options.dense else inspect
    found = [(network, read(network)) for network in options.networks]
    if options.json:
        print(json.dumps([{"network": str(network), "layers": rows} for network, rows in found], indent=1))
        return code
    for network, rows in found:
        print(network.name)
        shown = [{**row, "kept": _ranges(row["kept"])} for row in rows] if options.dense else rows
        print(profile_text(shown))
        if options.dense:
            kept, of = ({row["layer"]: row[key] for row in rows} for key in ("filters", "of"))
            print(f"sparsity of filters: {channel_sparsity(kept, of):.4f}")
    return code


def _print_densities(trials: list[Place], as_json: bool) -> None:
    found = retention(trials)
    rows = [{"layer": layer, **dict(zip(_names(trials), shares, strict=True))} for layer, shares in found.items()]
    if not rows:
        raise UserError("no trial has a mask or a smaller network: give trials that prune")
    print(json.dumps(rows, indent=1) if as_json else profile_text(rows))


def _names(trials: list[Place]) -> list[str]:
    """Names of trials, numbered where they are equal."""
    names = [trial.name for trial in trials]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, start=1)]


def _ranges(numbers: list[int]) -> str:
    """Ascending numbers in few words.

    >>> _ranges([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
