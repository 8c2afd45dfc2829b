"""``python -m trials profile``: MACs, FLOPs, parameters and latency of trials' networks, dense, sparse and compact."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch

from trials.commands.arguments import add_threads, command_parser, note_unfinished
from trials.compact import Architecture
from trials.networks.stored import network, switches_of
from trials.sparsity.accounting import LayerSizes, layer_parameters, summary, torch_flops
from trials.storage.sweep_path import trial_place
from trials.training.arithmetic import arithmetic
from trials.training.compact_form import compact_form
from trials.training.device import resolve_device
from trials.training.latency import measure
from trials.training.net import Net


def profile(trial: Path, device: torch.device) -> list[dict[str, Any]]:
    """Return a row per form of a trial's network: ``trial``, ``form``, its :func:`costs` and its latency (ms).

    ``dense``: the unpruned model. ``sparse``: the masked model; its figures are what the masks promise, as zeros cost
    nothing in them, while its latency includes the multiplications by zero. ``compact``: what ``export --form compact``
    writes: physically smaller, with the same outputs; the zeros that are left in it cost what other weights cost.

    Raises:
        UserError: the folder holds no trial with a checkpoint, or its model cannot be traced.
    """
    architecture, net = network(trial)
    dense = architecture.build()
    sizes = LayerSizes.measured(dense, architecture.shape)
    total = torch_flops(dense, architecture.shape)
    rows = []
    for form, each in forms(Net(dense), net).items():
        row = costs(each, sizes, total, torch_flops(each.model, architecture.shape))
        placed = _placed(each, architecture, device)
        with arithmetic(device, **switches_of(trial)):
            latency = measure(placed, architecture.shape)
        rows.append({"trial": trial.name, "form": form, **row, **latency})
    return rows


def forms(dense: Net, net: Net) -> dict[str, Net]:
    """Return a network's forms by name: dense, sparse if it has masks, compact if it has masks or can be smaller."""
    smaller = compact_form(net)
    smaller.set_masks({})  # what is computed with, zeros included
    found = {"dense": dense}
    if net.masks:
        found["sparse"] = net
    if net.masks or smaller.kept:
        found["compact"] = smaller
    return found


def costs(net: Net, sizes: LayerSizes, dense_flops: int, own_flops: int | None = None) -> dict[str, Any]:
    """Return density, MACs, FLOPs, speedup, parameters and compression of a network relative to its dense one.

    Args:
        sizes: layer sizes of the dense network.
        dense_flops: FLOPs of the dense network.
        own_flops: FLOPs of the network as it is, with its zeros, from which those saved by masks are subtracted;
            None: those of the dense network, less what the smaller shapes of its layers save.
    """
    left = summary(net, sizes)
    shapes = 2 * sizes.macs_of(net.model)
    if own_flops is None:
        own_flops = dense_flops - (sizes.dense_flops - shapes)
    flops = own_flops - (shapes - left["flops"])
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
    parser = command_parser(
        "profile",
        description="MACs, FLOPs, parameters and measured latency of trials' networks.",
    )
    parser.add_argument("trials", type=trial_place, nargs="+", metavar="TRIAL", help="a trial's folder")
    parser.add_argument("--device", default="auto", help="where latency is measured; default: auto")
    add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    code = note_unfinished(options.trials)
    rows = [row for trial in options.trials for row in profile(trial, device)]
    print(json.dumps(rows, indent=1) if options.json else profile_text(rows))
    return code
