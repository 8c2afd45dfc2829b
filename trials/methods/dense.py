"""Dense training: the baseline, and the network that the other methods start from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from trials.config.recipes import PretrainRecipe
from trials.config.trial_config import StartsDense, TrialConfig
from trials.methods.base import Method, Stage, TrainStage, mutable_of


class DenseConfig(TrialConfig):
    """Train the model as it is.

    ``snapshots``: epochs after which a copy of the network is kept in the checkpoint, for methods that rewind.
    """

    method: Literal["dense"] = "dense"
    train: PretrainRecipe = PretrainRecipe()
    snapshots: tuple[int, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _snapshots_exist(self) -> DenseConfig:
        epochs = self.train.epochs + self.train.warmup_epochs
        for epoch in self.snapshots:
            if not 1 <= epoch <= epochs:
                raise ValueError(f"snapshots has {epoch}, but must be epochs between 1 and {epochs}")
        return self


class Dense(Method):
    """One stage. As a trial of a sweep it is shared like any other dense network: its own source."""

    Config = DenseConfig
    mutable = mutable_of("train")
    config: DenseConfig

    def stages(self) -> Iterator[Stage]:
        yield TrainStage("pretrain", self.config.train, snapshot_epochs=self.config.snapshots)


def is_shared(config: TrialConfig) -> bool:
    """Whether a trial of a sweep is a shared stage and nothing more; a segment of a population's member is its own."""
    return config.method == "dense" and config.until_epoch is None


def dense_source(config: StartsDense, snapshots: tuple[int, ...] = ()) -> DenseConfig | None:
    """The dense trial that ``config`` starts from. None for a ``source_net``."""
    return None if config.source_net is not None else dense_trial(config, config.pretrain, snapshots)


def dense_trial(config: TrialConfig, train: PretrainRecipe, snapshots: tuple[int, ...] = ()) -> DenseConfig:
    """The dense trial with all that ``config`` has in common with it: named by exactly what influences it."""
    own = ("method", "variant", "until_epoch", "lineage")
    common = {name: getattr(config, name) for name in TrialConfig.model_fields if name not in own}
    return DenseConfig(**common, train=train, snapshots=snapshots)
