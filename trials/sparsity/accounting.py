"""Counting: what a network has, what is left of it, and what that costs."""

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
    """Per prunable weight of the dense network, in module order: how many there are, at how many positions used.

    A weight used at p positions of the output costs p multiply-adds (MACs), that is 2p FLOPs, per image, in grouped
    convolutions too. Biases, BN, ReLU and pooling are not counted (GReg, section 13, by which speedups are published).

    Attributes:
        parameters: of the whole network, biases and norms included.
        layer_parameters: weights and biases of convolutions and linear layers: what compression is published by.
    """

    totals: dict[str, int]
    positions: dict[str, int]
    parameters: int
    layer_parameters: int

    @classmethod
    def of(cls, net: Net, raw: Source) -> LayerSizes:
        """Measured by one forward pass of one blank image."""
        return cls.measured(net.model, (raw.in_channels, *raw.image_size))

    @classmethod
    def measured(cls, model: nn.Module, shape: Sequence[int]) -> LayerSizes:
        """Measured by one forward pass of one blank image of ``shape`` [C, H, W]; free on ``meta``."""
        weights = prunable(model)
        positions: dict[str, int] = {}

        def note(name: str) -> Any:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                positions[name] = output[0, 0].numel() if output.dim() == 4 else 1

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
        return sum(2 * total * self.positions[name] for name, total in self.totals.items())


def layer_parameters(model: nn.Module) -> int:
    """Weights and biases of convolutions and linear layers, without norms."""
    layers = [model.get_submodule(name.removesuffix(".weight")) for name in prunable(model)]
    return _count(parameter for layer in layers for parameter in layer.parameters(recurse=False))


def torch_flops(model: nn.Module, shape: Sequence[int]) -> int:
    """FLOPs of one image of ``shape`` [C, H, W] as torch counts them, without computing: the independent count."""
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
    """Weights left per layer, from the shapes and the masks; one wait for the device in all."""
    counts = {name: weight.numel() for name, weight in prunable(net.model).items()} if net.kept else dict(sizes.totals)
    if net.masks:
        counts |= zip(net.masks, torch.stack([mask.sum() for mask in net.masks.values()]).tolist(), strict=True)
    return counts


def summary(net: Net, sizes: LayerSizes) -> dict[str, Any]:
    """Columns of a row: density and sparsity, empty layers; MACs, FLOPs and parameters of what is left.

    Density is over the weights that have masks; where there are none, or the network was made smaller, over all.
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
    """One row per prunable weight: (stage, level, layer, total, kept, density, FLOPs of what is left).

    ``own``: by a weight's name, what the stage adds to its row.
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
