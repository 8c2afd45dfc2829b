"""A method that keeps its contract: masks of the largest initial weights, then training. Broken ones derive from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

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
    prunable,
    require_prunable,
    share_of,
)

FIELDS: dict[str, Any] = {"density": 0.3, "train": {"epochs": 2, "batch_size": 16}}


class SmallConfig(TrialConfig):
    density: float = Field(gt=0, le=1)
    train: Recipe = Recipe()


class SmallStage(TrainStage):
    changes_network = True

    def __init__(self, config: Any) -> None:
        super().__init__("train", config.train)
        self.config = config

    def kept(self) -> float:
        return float(self.config.density)

    def enter(self, net: Net) -> None:
        scores = {name: weight.detach().abs() for name, weight in prunable(net.model).items()}
        parts = {"pattern": PATTERNS["weight"], "distribution": DISTRIBUTIONS["global"]}
        net.set_masks(build_masks(scores, density=self.kept(), **parts))  # type: ignore[arg-type]


class Small(Method):
    Config = SmallConfig
    Stages: ClassVar[tuple[type[SmallStage], ...]] = (SmallStage,)
    mutable = frozenset({"train.lr"})

    def check(self, model: nn.Module, data: DataHeader) -> None:
        require_prunable(model, data, self.config.density, name=self.config.model, pattern=PATTERNS["weight"])

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        return (share_of(prunable(model), self.config.density),)

    def stages(self) -> Iterator[Stage]:
        return (stage(self.config) for stage in self.Stages)
