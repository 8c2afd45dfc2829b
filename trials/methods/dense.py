"""Dense training: the unpruned baseline, and the network that most other methods start from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from trials.config.recipes import PretrainRecipe
from trials.config.source_config import StartsDense
from trials.config.trial_config import ReportRule, TrialConfig
from trials.methods.base import Method, Stage, TrainStage, mutable_of


class DenseConfig(TrialConfig):
    """Train the model without pruning.

    Attributes:
        train: recipe of the training.
        snapshots: epochs (1-based) after which the checkpoint keeps a copy of the network, for methods that rewind.
    """

    method: Literal["dense"] = "dense"
    train: PretrainRecipe = PretrainRecipe()
    snapshots: tuple[int, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _snapshots_exist(self) -> DenseConfig:
        epochs = self.train.all_epochs
        for epoch in self.snapshots:
            if not 1 <= epoch <= epochs:
                raise ValueError(f"snapshots has {epoch}, but must be epochs between 1 and {epochs}")
        return self

    @property
    def reported(self) -> ReportRule:
        return self.report or ("last" if self.train.patience is None else "best_val")

    @property
    def revision(self) -> int:
        return 2 if self.report == "last" and self.train.patience is not None else super().revision

    @property
    def revised_because(self) -> str:
        if self.revision == 1:
            return super().revised_because
        return "it ended with its best epoch, although report: last asks for the last one"


class Dense(Method):
    """Dense training, one stage. As a trial of a sweep it copies the shared trial of the same config."""

    Config = DenseConfig
    mutable = mutable_of("train")
    config: DenseConfig

    def stages(self) -> Iterator[Stage]:
        yield TrainStage("pretrain", self.config.train, snapshot_epochs=self.config.snapshots)


def copies_shared(config: TrialConfig) -> bool:
    """Whether a sweep's trial of this config copies a shared trial: dense training, but no segment of a population."""
    return config.method == "dense" and config.until_epoch is None


def copied(config: TrialConfig) -> TrialConfig:
    """The shared trial that a sweep's dense trial copies: of the same content, named without what changes nothing."""
    by_itself = config.model_copy(update={"report": None})
    return by_itself if by_itself.reported == config.reported else config


def dense_source(config: StartsDense, snapshots: tuple[int, ...] = ()) -> DenseConfig | None:
    """The dense trial that ``config`` starts from; None if it starts from a ``source_net`` instead."""
    return None if config.source_net is not None else dense_trial(config, config.pretrain, snapshots)


def dense_trial(config: TrialConfig, train: PretrainRecipe, snapshots: tuple[int, ...] = ()) -> DenseConfig:
    """The dense trial with the common fields of ``config``. Trials that agree on these share it."""
    return DenseConfig(**fields_of_source(config, TrialConfig), train=train, snapshots=snapshots)


def fields_of_source(config: TrialConfig, kind: type[TrialConfig]) -> dict[str, Any]:
    """The fields of ``kind`` that a source takes over from ``config``.

    A source is no segment of a population, and ends with the epoch of its own rule (``report``).
    """
    own = ("method", "variant", "until_epoch", "lineage", "report")
    hashes = {name: digest for name, digest in config.file_hashes.items() if name in kind.named_files}
    return {name: getattr(config, name) for name in kind.model_fields if name not in own} | {"file_hashes": hashes}
