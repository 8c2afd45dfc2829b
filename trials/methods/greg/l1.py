"""L1 pruning: remove the groups of lowest mean |theta| of every layer at once, then finetune.

Li et al. 2017, https://arxiv.org/abs/1608.08710, as the baseline of GReg implements it: MingSun-Tse/
Regularization-Pruning at a4044028, pruner/l1_pruner.py.

    score(g) = mean |theta| over group g
    picked = the k lowest of each layer's n groups, k = min(ceil(pr n), n - 1), pr: the layer's ratio
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from trials.methods.base import generator_for
from trials.methods.greg.groups import Pick
from trials.methods.greg.removal import RemovalMethod, RemoveThenTrain
from trials.methods.greg.removal_config import RemovalConfig
from trials.sparsity import prunable
from trials.training.net import Net


class L1Config(RemovalConfig):
    """Remove the share ``stage_pr`` of every layer's groups at once.

    Attributes:
        pick_pruned: pick the lowest scores (min), or as controls the highest (max) or random groups (rand).
        reinit: how to reinitialise the remaining network: ``orthogonal`` weights of convolutions and linear layers, or
            ``kaiming`` normal weights with biases 0 and BN reset. None keeps the trained weights.
    """

    method: Literal["l1"] = "l1"
    pick_pruned: Pick = "min"
    reinit: Literal["orthogonal", "kaiming"] | None = None


class PickAndRemove(RemoveThenTrain):
    """Finetuning that picks and removes groups on entry."""

    config: L1Config

    def enter(self, net: Net) -> None:
        net.picked = self.config.picks(net, self.config.pick_pruned)
        super().enter(net)
        if self.config.reinit is not None:
            reinitialise_network(net, self.config.reinit, generator_for(self.config, "reinit"))


class L1(RemovalMethod):
    """L1 pruning: dense network -> picked = lowest(mean |theta|) -> removal -> finetuning."""

    Config = L1Config
    config: L1Config

    def removal(self) -> PickAndRemove:
        return PickAndRemove(self.config)


def reinitialise_network(net: Net, kind: Literal["orthogonal", "kaiming"], generator: torch.Generator) -> None:
    """Draw new weights on the CPU, so that they are the same on every device. Masked weights stay zero."""
    draw: Callable[..., Tensor] = nn.init.orthogonal_ if kind == "orthogonal" else nn.init.kaiming_normal_
    with torch.no_grad():
        for weight in prunable(net.model).values():
            weight.copy_(draw(torch.empty(weight.shape), generator=generator))
        if kind == "kaiming":
            for module in net.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.reset_parameters()
                elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                    module.bias.zero_()
    net.set_masks(net.masks)
