"""SNIP: prune before training, by connection sensitivity (Lee et al. 2019, https://arxiv.org/abs/1810.02340)."""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import nn

from trials.extend import (
    DISTRIBUTIONS,
    PATTERNS,
    AskedShare,
    DataHeader,
    Method,
    Net,
    Recipe,
    Stage,
    TrainStage,
    TrialConfig,
    build_masks,
    mutable_of,
    prunable,
    require_prunable,
    share_of,
)


class SnipConfig(TrialConfig):
    """Keep the share ``density`` of all weights, those of the highest sensitivity on one batch; then train.

    Attributes:
        images: size of that batch; the paper takes 128 for CIFAR-10.
    """

    density: float = Field(gt=0, le=1)
    images: int = Field(default=128, ge=1)
    train: Recipe = Recipe()


class SnipStage(TrainStage):
    """Prunes on entry."""

    changes_network = True

    def __init__(self, config: SnipConfig) -> None:
        super().__init__("train", config.train)
        self.config = config

    def observe(self, net: Net) -> None:
        twin = net.clone()  # the pass updates statistics of batch norm, which must not change the network
        twin.model.train()
        images, labels = next(iter(self.context.look("train", self.config.images)))
        with torch.random.fork_rng():
            torch.manual_seed(self.context.seed)  # for dropout
            twin.backward(images, labels)
        weights = prunable(twin.model)
        self.sensitivity = {name: (w.grad * w.detach()).abs() for name, w in weights.items()}  # |g w|

    def enter(self, net: Net) -> None:
        net.set_masks(
            build_masks(
                self.sensitivity,
                density=self.config.density,
                pattern=PATTERNS["weight"],
                distribution=DISTRIBUTIONS["global"],
            )
        )


class Snip(Method):
    """SNIP: s = |dL/dw w| at initialisation on one batch; m = top(s, density); train m w."""

    Config = SnipConfig
    config: SnipConfig
    mutable = mutable_of("train")
    stoppable = ("train",)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        require_prunable(model, data, self.config.density, name=self.config.model, pattern=PATTERNS["weight"])

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        return (share_of(prunable(model), self.config.density),)

    def stages(self) -> Iterator[Stage]:
        yield SnipStage(self.config)
