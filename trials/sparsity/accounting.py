"""Counting: what a network has, what is left of it, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trials.data import Source
from trials.sparsity.masks import prunable
from trials.training import Net


@dataclass(frozen=True)
class LayerSizes:
    """Per prunable weight, in module order: how many there are, and at how many output positions each is used.

    A weight used at p positions costs p multiply-adds, that is 2p FLOPs, per image. Biases, BN, ReLU and pooling are
    not counted (GReg, section 13, by which speedups are published).
    """

    totals: dict[str, int]
    positions: dict[str, int]
    parameters: int

    @classmethod
    def of(cls, net: Net, raw: Source) -> LayerSizes:
        """Measured by one forward pass of one blank image."""
        weights = prunable(net.model)
        positions: dict[str, int] = {}

        def note(name: str) -> Any:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                positions[name] = output[0, 0].numel() if output.dim() == 4 else 1

            return hook

        modules = dict(net.model.named_modules())
        hooks = [modules[name.removesuffix(".weight")].register_forward_hook(note(name)) for name in weights]
        net.model.eval()
        with torch.no_grad():
            dtype = next(net.model.parameters()).dtype
            net.model(torch.zeros(1, raw.in_channels, *raw.image_size, device=net.device, dtype=dtype))
        for hook in hooks:
            hook.remove()
        parameters = sum(p.numel() for p in net.model.parameters())
        return cls({name: weight.numel() for name, weight in weights.items()}, positions, parameters)

    @property
    def dense_flops(self) -> int:
        return sum(2 * total * self.positions[name] for name, total in self.totals.items())


def kept_counts(net: Net, sizes: LayerSizes) -> dict[str, int]:
    """Weights left per layer, from the masks; one wait for the device in all."""
    if not net.masks:
        return dict(sizes.totals)
    counts = torch.stack([mask.sum() for mask in net.masks.values()]).tolist()
    return {**sizes.totals, **dict(zip(net.masks, counts, strict=True))}


def summary(net: Net, sizes: LayerSizes) -> dict[str, Any]:
    """Columns of a row: density and sparsity over the weights that have masks, empty layers, FLOPs of what is left."""
    kept = kept_counts(net, sizes)
    counted = net.masks or sizes.totals
    left, total = sum(kept[name] for name in counted), sum(sizes.totals[name] for name in counted)
    return {
        "density": left / total,
        "sparsity": 1 - left / total,
        "kept": left,
        "prunable": total,
        "empty_layers": sum(kept[name] == 0 for name in counted),
        "flops": sum(2 * count * sizes.positions[name] for name, count in kept.items()),
    }


def layer_rows(net: Net, sizes: LayerSizes, *, stage: str, level: int) -> list[dict[str, Any]]:
    """One row per prunable weight: (stage, level, layer, total, kept, density, FLOPs of what is left)."""
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
        }
        for name, count in kept_counts(net, sizes).items()
    ]
