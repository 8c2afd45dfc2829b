"""Counts weights, parameters and FLOPs of a network: dense, as its masks promise, and as a compact form of it needs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trials.compact import dependencies
from trials.data import Source
from trials.sparsity.masks import prunable
from trials.sparsity.positions import measured_positions
from trials.storage.rows import COMPACT
from trials.training.compact_form import compact_form
from trials.training.net import Net


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of a dense network's prunable weights, by weight name in module order.

    A weight used at p output positions (pixels or tokens, in all calls) costs p multiply-adds (MACs), that is 2p FLOPs,
    per image; this holds for grouped convolutions too. Biases, BN, ReLU and pooling are not counted, as in the released
    GReg code, by which speedups are published (https://github.com/MingSun-Tse/Regularization-Pruning, commit a4044028).
    Nor is what has no Conv2d or Linear: of ``nn.MultiheadAttention``, the output layer is counted, but neither its
    input projection nor the products of queries, keys and values. :func:`torch_flops` counts these too.

    Attributes:
        totals: entries of each weight tensor. One that several layers share stands once, under the first one's name.
        positions: output positions per image at which each of these entries is used, by any layer.
        parameters: all parameters of the network, biases and norms included.
        layer_parameters: weights and biases of convolutions and linear layers, by which compression is published.
    """

    totals: dict[str, int]
    positions: dict[str, int]
    parameters: int
    layer_parameters: int

    @classmethod
    def of(cls, net: Net, raw: Source) -> LayerSizes:
        """Measure ``net`` by one forward pass of a blank image of ``raw``'s shape."""
        return cls.measured(net.model, (raw.in_channels, *raw.image_size))

    @classmethod
    def measured(cls, model: nn.Module, shape: Sequence[int]) -> LayerSizes:
        """Measure ``model`` by one forward pass of a blank image of ``shape`` [C, H, W]; free on ``meta``."""
        weights = _distinct(prunable(model))
        positions = measured_positions(model, weights, shape)
        totals = {name: weight.numel() for name, weight in weights.items()}
        return cls(totals, positions, _count(model.parameters()), layer_parameters(model))

    @property
    def dense_flops(self) -> int:
        """FLOPs of one image through the prunable layers of the dense network."""
        return sum(2 * total * self.positions[name] for name, total in self.totals.items())

    def macs_of(self, model: nn.Module) -> int:
        """MACs of one image through the prunable layers of the network or a smaller one of it, zeros included."""
        weights = prunable(model)
        return sum(weights[name].numel() * positions for name, positions in self.positions.items())


def layer_parameters(model: nn.Module) -> int:
    """Return the number of weights and biases of convolutions and linear layers, without norms; shared ones once."""
    layers = [model.get_submodule(name.removesuffix(".weight")) for name in prunable(model)]
    found = {id(parameter): parameter for layer in layers for parameter in layer.parameters(recurse=False)}
    return _count(found.values())


def torch_flops(model: nn.Module, shape: Sequence[int]) -> int:
    """Return the FLOPs of one image of ``shape`` [C, H, W] as torch counts them, on ``meta``: an independent check."""
    from torch.utils.flop_counter import FlopCounterMode  # takes seconds to import

    copy_of = _without_values(model).eval()
    example = torch.zeros(1, *shape, device="meta", dtype=next(model.parameters()).dtype)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy_of(example)
    return int(counter.get_total_flops())


def _without_values(model: nn.Module) -> nn.Module:
    """A copy on ``meta``; tensors and modules that are shared stay so, and tensors that are no parameters go along."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        own = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
        for tensor in own:
            if isinstance(tensor, Tensor):
                meta = tensor.detach().to("meta")
                memo[id(tensor)] = nn.Parameter(meta, False) if isinstance(tensor, nn.Parameter) else meta
    return copy.deepcopy(model, memo)


def _distinct(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without those that are another's too."""
    first: dict[int, str] = {}
    return {name: weight for name, weight in weights.items() if first.setdefault(id(weight), name) == name}


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def kept_counts(net: Net, sizes: LayerSizes) -> dict[str, int]:
    """Return the number of kept weights per layer, from shapes and masks. Synchronises with the device once."""
    weights = prunable(net.model)
    counts = {name: weights[name].numel() for name in sizes.totals} if net.kept else dict(sizes.totals)
    masks = net.masks
    if masks:
        counts |= zip(masks, torch.stack([mask.sum() for mask in masks.values()]).tolist(), strict=True)
    return counts


def summary(net: Net, sizes: LayerSizes) -> dict[str, Any]:
    """Return the columns of a row: density, sparsity, empty layers, and MACs, FLOPs and parameters that are left.

    Density is over the weights that have masks; without masks, or for a compact network, over all prunable weights of
    the dense network. MACs, FLOPs and parameters are what the masks promise: a masked weight costs nothing.
    """
    kept, masks = kept_counts(net, sizes), net.masks
    counted = masks if masks and not net.kept else sizes.totals
    left, total = sum(kept[name] for name in counted), sum(sizes.totals[name] for name in counted)
    macs = sum(count * sizes.positions[name] for name, count in kept.items())
    masked = sum(mask.numel() - kept[name] for name, mask in masks.items())
    return {
        "density": left / total,
        "sparsity": 1 - left / total,
        "kept": left,
        "prunable": total,
        "empty_layers": sum(kept[name] == 0 for name in counted),
        "macs": macs,
        "flops": 2 * macs,
        "parameters": _count(net.model.parameters()) - masked,
    }


def realised(net: Net, sizes: LayerSizes) -> dict[str, int]:
    """Return the columns COMPACT: MACs, FLOPs and parameters of the network that ``export --form compact`` writes.

    Zeros that are left in it count. A network that cannot be traced is counted as it is, and cannot be exported so.
    """
    model = compact_form(net).model if _traceable(net.model) else net.model
    macs = sizes.macs_of(model)
    return dict(zip(COMPACT, (macs, 2 * macs, _count(model.parameters())), strict=True))


def _traceable(model: nn.Module) -> bool:
    try:
        dependencies(model)
    except Exception:  # noqa: BLE001  whatever the model's own code raises when it is traced
        return False
    return True


def layer_rows(
    net: Net, sizes: LayerSizes, *, stage: str, level: int, own: Mapping[str, Mapping[str, float]] | None = None
) -> list[dict[str, Any]]:
    """Return one row per prunable weight: stage, level, layer, total, kept, density and the FLOPs that are left.

    Args:
        own: further columns from the stage, by weight name.
    """
    return [
        {
            "stage": stage,
            "level": level,
            "layer": name.removesuffix(".weight"),
            "total": sizes.totals[name],
            "kept": count,
            "density": count / sizes.totals[name],
            "flops": 2 * count * sizes.positions[name],
            "stage_id": None,
            **(own or {}).get(name, {}),
        }
        for name, count in kept_counts(net, sizes).items()
    ]
