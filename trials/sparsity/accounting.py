"""Counts weights, parameters and FLOPs of a network, dense and as pruned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trials.data import Source
from trials.sparsity.masks import prunable
from trials.training.net import Net


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of a dense network's prunable weights, by weight name in module order.

    A weight used at p output positions costs p multiply-adds (MACs), that is 2p FLOPs, per image; this holds for
    grouped convolutions too. Biases, BN, ReLU and pooling are not counted, as in the released GReg code, by which
    speedups are published (https://github.com/MingSun-Tse/Regularization-Pruning, commit a4044028).

    Attributes:
        totals: entries of each weight tensor.
        positions: output positions per image at which each of these entries is used.
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
        weights = prunable(model)
        positions = dict.fromkeys(weights, 0)

        def note(name: str) -> Any:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                positions[name] += output[0, 0].numel() if output.dim() == 4 else 1  # once for each call

            return hook

        modules = dict(model.named_modules())
        hooks = [modules[name.removesuffix(".weight")].register_forward_hook(note(name)) for name in weights]
        model.eval()
        with torch.no_grad():
            example = next(iter(weights.values()))
            model(torch.zeros(1, *shape, device=example.device, dtype=example.dtype))
        for hook in hooks:
            hook.remove()
        totals = {name: weight.numel() for name, weight in weights.items()}
        return cls(totals, positions, _count(model.parameters()), layer_parameters(model))

    @property
    def dense_flops(self) -> int:
        """FLOPs of one image through the prunable layers of the dense network."""
        return sum(2 * total * self.positions[name] for name, total in self.totals.items())


def layer_parameters(model: nn.Module) -> int:
    """Return the number of weights and biases of convolutions and linear layers, without norms."""
    layers = [model.get_submodule(name.removesuffix(".weight")) for name in prunable(model)]
    return _count(parameter for layer in layers for parameter in layer.parameters(recurse=False))


def torch_flops(model: nn.Module, shape: Sequence[int]) -> int:
    """Return the FLOPs of one image of ``shape`` [C, H, W] as torch counts them, on ``meta``: an independent check."""
    from torch.utils.flop_counter import FlopCounterMode  # takes seconds to import

    meta = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
    example = torch.zeros(1, *shape, device="meta", dtype=next(model.parameters()).dtype)
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        torch.func.functional_call(model, meta, (example,))
    return int(counter.get_total_flops())


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def kept_counts(net: Net, sizes: LayerSizes) -> dict[str, int]:
    """Return the number of kept weights per layer, from shapes and masks. Synchronises with the device once."""
    counts = {name: weight.numel() for name, weight in prunable(net.model).items()} if net.kept else dict(sizes.totals)
    if net.masks:
        counts |= zip(net.masks, torch.stack([mask.sum() for mask in net.masks.values()]).tolist(), strict=True)
    return counts


def summary(net: Net, sizes: LayerSizes) -> dict[str, Any]:
    """Return the columns of a row: density, sparsity, empty layers, and MACs, FLOPs and parameters that are left.

    Density is over the weights that have masks; without masks, or for a compact network, over all prunable weights.
    """
    kept = kept_counts(net, sizes)
    counted = net.masks if net.masks and not net.kept else sizes.totals
    left, total = sum(kept[name] for name in counted), sum(sizes.totals[name] for name in counted)
    macs = sum(count * sizes.positions[name] for name, count in kept.items())
    masked = sum(net.masks[name].numel() - kept[name] for name in net.masks)
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
