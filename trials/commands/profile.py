"""``python -m trials profile``: MACs, FLOPs, parameters and latency of trials' networks, dense, sparse and compact."""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch

from trials.commands.arguments import add_threads
from trials.compact import Architecture, removable
from trials.networks.stored import network
from trials.sparsity.accounting import LayerSizes, layer_parameters, summary, torch_flops
from trials.storage.place import place
from trials.training.device import resolve_device
from trials.training.latency import measure
from trials.training.net import Net

PROFILE_COLUMNS = (
    "trial",
    "form",
    "density",
    "macs",
    "flops",
    "speedup",
    "parameters",
    "layer_parameters",
    "compression",
)


def profile(trial: Path, device: torch.device) -> list[dict[str, Any]]:
    """Return a row per form of a trial's network: PROFILE_COLUMNS, ``latency_ms_1`` and ``latency_ms_128`` (ms).

    ``dense``: the unpruned model. ``sparse``: the masked model; its latency includes the multiplications by zero.
    ``compact``: physically smaller, as stored or with the filters removed that the masks zero entirely.

    Raises:
        UserError: the folder holds no trial with a checkpoint.
    """
    architecture, net = network(trial)
    dense = architecture.build()
    sizes = LayerSizes.measured(copy.deepcopy(dense).to("meta"), architecture.shape)
    total = torch_flops(dense, architecture.shape)
    rows = []
    for form, each in forms(Net(dense), net).items():
        row = costs(each, sizes, total)
        placed = _placed(each, architecture, device)
        rows.append({"trial": trial.name, "form": form, **row, **measure(placed, architecture.shape)})
    return rows


def forms(dense: Net, net: Net) -> dict[str, Net]:
    """Return the forms that a network has, by name (dense, sparse, compact)."""
    found = {"dense": dense}
    if net.masks:
        found["sparse"] = net
    if net.kept and not net.masks:
        found["compact"] = net
    elif net.masks and (rows := removable(net.model, net.masks)):
        smaller = Net(copy.deepcopy(net.model))
        smaller.set_masks(net.masks)
        smaller.kept = dict(net.kept)
        smaller.shrink(rows, "filter")
        smaller.set_masks({})
        found["compact"] = smaller
    return found


def costs(net: Net, sizes: LayerSizes, dense_flops: int) -> dict[str, Any]:
    """Return density, MACs, FLOPs, speedup, parameters and compression of a network relative to its dense one.

    Args:
        sizes: layer sizes of the dense network.
        dense_flops: FLOPs of the dense network; those saved by masks and smaller shapes are subtracted from it.
    """
    left = summary(net, sizes)
    flops = dense_flops - (sizes.dense_flops - left["flops"])
    masked = sum(p.numel() for p in net.model.parameters()) - left["parameters"]
    in_layers = layer_parameters(net.model) - masked
    return {
        "density": left["density"],
        "macs": flops // 2,
        "flops": flops,
        "speedup": dense_flops / flops,
        "parameters": left["parameters"],
        "layer_parameters": in_layers,
        "compression": sizes.layer_parameters / in_layers,
    }


def profile_text(rows: list[dict[str, Any]]) -> str:
    """Format rows as lines of aligned columns."""
    cells = [list(rows[0]), *([_short(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(lines)


def _placed(net: Net, architecture: Architecture, device: torch.device) -> Net:
    """Copy the network to the device, in the memory format and precision in which trials run there."""
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    model = copy.deepcopy(net.model).to(device).to(memory_format=layout)
    return Net(model, autocast=architecture.precision == "bf16")


def _short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def profile_command(arguments: list[str]) -> int:
    """Run ``profile TRIAL [TRIAL...]``; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trials profile", description="MACs, FLOPs, parameters and measured latency of trials' networks."
    )
    parser.add_argument("trials", type=place, nargs="+", metavar="TRIAL", help="a trial's folder")
    parser.add_argument("--device", default="auto", help="where latency is measured; default: auto")
    add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    rows = [row for trial in options.trials for row in profile(trial, device)]
    print(json.dumps(rows, indent=1) if options.json else profile_text(rows))
    return 0
