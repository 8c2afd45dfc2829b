"""Networks with random weights and masks, and trials' folders that hold them without any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from trials.compact import Architecture
from trials.sparsity import prunable
from trials.storage.trial_folder import TrialFolder
from trials.training.net import Net


def stored(folder: Path, net: Net, architecture: Architecture) -> Path:
    """The folder of a finished trial with this network."""
    attempt, _ = TrialFolder(folder).begin()
    content = {"net": net.state_dict(), "architecture": architecture.record(), "position": {"stage": 1}, "data": ""}
    attempt.commit(checkpoint=content, rows={"epochs": []}, progress={}, seconds=0.0, status="complete")
    return folder


def enliven(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a model random weights, and norms random statistics, scales and shifts of both signs; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if tensor.dim() > 1:
            tensor.uniform_(-1, 1, generator=generator).mul_((6 / tensor[0].numel()) ** 0.5)
        elif tensor.dim() == 1:
            low = 0.5 if "var" in key or "weight" in key else -0.5
            tensor.uniform_(low, low + 1, generator=generator)
    return model.eval()


def _filters(weight: Tensor, generator: torch.Generator) -> Tensor:
    off = torch.rand(len(weight), generator=generator) < 0.6
    return (~off).view(-1, *[1] * (weight.dim() - 1)).expand(weight.shape).clone()


def _channels(weight: Tensor, generator: torch.Generator) -> Tensor:
    off = torch.rand(weight.shape[1], generator=generator) < 0.6
    return (~off).view(1, -1, *[1] * (weight.dim() - 2)).expand(weight.shape).clone()


def _weights(weight: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(weight.shape, generator=generator) < 0.2


MASKS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "filter": _filters,
    "channel": _channels,
    "weight": _weights,
}
"""By pattern, what of a weight a random mask keeps."""


def random_masks(model: nn.Module, pattern: str, seed: int = 0) -> dict[str, Tensor]:
    """Masks of all layers whose weight the model has under that name; the last keeps all its filters."""
    generator = torch.Generator().manual_seed(seed)
    own = dict(model.named_parameters())
    weights = {name: weight for name, weight in prunable(model).items() if name in own}
    masks = {name: MASKS[pattern](weight, generator) for name, weight in weights.items()}
    if pattern == "filter":
        masks.pop(list(masks)[-1])
    return masks


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(images.to(next(model.parameters()).dtype))
    return found
