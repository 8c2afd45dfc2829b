"""What methods do in few operators on a GPU is what they do layer by layer on a CPU: compared here, on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from trials.methods.adaptive.adaptive_sparsity import AdaptiveSparsityConfig, TrainWithThresholds
from trials.methods.base import Stage
from trials.methods.bip.bip import Bilevel, BipConfig
from trials.methods.bip.hydra import HydraConfig, TrainScores
from trials.methods.greg.greg1 import Greg1Config, Greg1Stage
from trials.methods.greg.greg2 import Greg2Config, Greg2Stage
from trials.models import build
from trials.sparsity.adaptive import sparsity_loss, sparsity_loss_gradient
from trials.training import launches
from trials.training.net import Net

WHAT: dict[str, Any] = {"dataset": "digits", "model": "tiny"}
GROWTH = {**WHAT, "stage_pr": 0.5, "update_reg_interval": 2, "reg_granularity_prune": 0.2}

STAGES = {
    "bip paper": lambda: Bilevel(BipConfig(density=0.2, **WHAT)),
    "bip code": lambda: Bilevel(BipConfig(density=0.2, implicit_gradient="code", score_init="random", **WHAT)),
    "bip none": lambda: Bilevel(BipConfig(density=0.2, implicit_gradient="none", **WHAT)),
    "bip alias": lambda: Bilevel(BipConfig(density=0.2, variant="original", **WHAT)),
    "bip filter": lambda: Bilevel(BipConfig(density=0.5, pattern="filter", **WHAT)),
    "hydra": lambda: TrainScores(HydraConfig(density=0.1, **WHAT), HydraConfig(density=0.1, **WHAT).prune),
    "greg1 filter": lambda: Greg1Stage(Greg1Config(**GROWTH)),
    "greg1 weight": lambda: Greg1Stage(Greg1Config(pattern="weight", **GROWTH)),
    "greg1 blocked": lambda: Greg1Stage(Greg1Config(block_loss_grad=True, **GROWTH)),
    "greg2 channel": lambda: Greg2Stage(Greg2Config(pattern="channel", **GROWTH)),
    **{
        f"adaptive {mode}": lambda mode=mode: TrainWithThresholds(  # type: ignore[misc]
            AdaptiveSparsityConfig(starget=0.7, lv=10, mode=mode, pthres=100, **WHAT)
        )
        for mode in ("adaptive", "fixed", "one_sided")
    },
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def after_steps(stage: Stage, memory_format: torch.memory_format) -> tuple[list[float], list[Tensor]]:
    """Losses, and all tensors of network and stage, after five steps in float64."""
    model = build("tiny", num_classes=10, in_channels=1, seed=1).double().to(memory_format=memory_format)
    net = Net(model.train())
    stage.enter(net)
    stage.attach(net)
    stage.begin_epoch(0)
    generator, losses = torch.Generator().manual_seed(7), []
    for _ in range(5):
        batches = [
            (
                torch.randn(16, 1, 8, 8, generator=generator, dtype=torch.float64).to(memory_format=memory_format),
                torch.randint(10, (16,), generator=generator),
            )
            for _ in stage.streams
        ]
        stage.prepare()
        losses.append(float(stage.step(*batches)[0]))
    state = (net.model.state_dict(), net.masks, stage.state_dict())
    return losses, [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("kind", STAGES)
def test_the_branches_of_a_gpu_agree(kind: str, memory_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, tensors = after_steps(STAGES[kind](), FORMATS[memory_format])
    monkeypatch.setattr(launches, "few_launches", lambda device: True)
    other_losses, others = after_steps(STAGES[kind](), FORMATS[memory_format])
    assert losses == pytest.approx(other_losses, rel=1e-10)
    assert len(tensors) == len(others)
    for one, other in zip(tensors, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["adaptive", "fixed", "one_sided"])
@pytest.mark.parametrize("starget", [0.05, 0.9])
def test_the_sparsity_loss_has_this_gradient(mode: str, starget: float) -> None:
    generator = torch.Generator().manual_seed(0)
    r = (3 * torch.rand(6, generator=generator, dtype=torch.float64)).requires_grad_()
    n = torch.randint(10, 1000, (6,), generator=generator).double()
    loss = sparsity_loss(r, n, starget=starget, lv=3.0, mode=mode)
    (gradient,) = torch.autograd.grad(loss, r)
    found = sparsity_loss_gradient(r.detach(), n / n.sum(), starget=starget, lv=3.0, mode=mode)
    torch.testing.assert_close(found, (loss.detach(), gradient), rtol=1e-12, atol=1e-14)
