"""L1 pruning: remove the groups of least mean |w| of every layer at once, finetune (Li et al. 2017,
https://arxiv.org/abs/1608.08710; as GReg's authors compare with it, spec greg, section 5).

    score(g) = mean |w| over group g        picked = the r n lowest of each layer's n
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from trials.methods.base import generator_for
from trials.methods.greg.groups import Pick
from trials.methods.greg.removal import RemovalConfig, RemovalMethod, RemoveThenTrain
from trials.sparsity import prunable
from trials.training.net import Net


class L1Config(RemovalConfig):
    """Remove ``stage_pr`` of every layer in one go.

    Attributes:
        pick_pruned: the lowest scores (min), the highest (max), or any (rand): the controls.
        reinit: new weights for what is left: ``orthogonal`` ones of convolutions and linear layers, or ``kaiming``
            normal ones, with biases 0 and BN at its start. None trains on.
    """

    method: Literal["l1"] = "l1"
    pick_pruned: Pick = "min"
    reinit: Literal["orthogonal", "kaiming"] | None = None


class PickAndRemove(RemoveThenTrain):
    """Finetuning whose entry picks and removes."""

    config: L1Config

    def enter(self, net: Net) -> None:
        net.picked = self.config.picks(net, self.config.pick_pruned)
        super().enter(net)
        if self.config.reinit is not None:
            reinitialise_network(net, self.config.reinit, generator_for(self.config, "reinit"))


class L1(RemovalMethod):
    """theta -> picked = lowest(mean |theta|) -> remove -> finetune."""

    Config = L1Config
    config: L1Config

    def removal(self) -> PickAndRemove:
        return PickAndRemove(self.config)


def reinitialise_network(net: Net, kind: Literal["orthogonal", "kaiming"], generator: torch.Generator) -> None:
    """Draw new weights on the CPU, so that they are the same on every device; what is masked stays zero."""
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
