"""A trial's config: frozen, typed, unknown keys refused; its name is the hash of what it says beyond the defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trials.config.recipes import OpenRecipe, PretrainRecipe, one_of
from trials.data import DATASETS
from trials.errors import unknown_name
from trials.frozen import SCHEMA, Frozen
from trials.models import MODELS
from trials.models.imagenet_resnet import TORCHVISION

WHERE = frozenset({"data_dir", "device", "checkpoint_every_s", "measure_latency", "capture"})
"""Fields that say where and how a trial runs, not what it computes: not part of its name."""


class Segment(Frozen):
    """An earlier stretch of a trial whose hyperparameters change on the way (see trials/methods/segments.py).

    Attributes:
        until_epoch: how many epochs of the method's first stage were over at its end.
        values: its hyperparameters, by dotted path.
    """

    until_epoch: int = Field(ge=1)
    values: dict[str, str | int | float | bool | None]


class TrialConfig(Frozen):
    """What every trial says. A method adds its own fields in a subclass, beside the method.

    Attributes:
        normalise: pixels by the mean and deviation that the data set's papers use, or by ImageNet's (RGB only).
        capture: on CUDA, replay the steps of a stage as one CUDA graph where the stage allows it; False: run every step
            operator by operator.
        measure_latency: time the network it ends with, batches of 1 and 128 images, on the trial's own device.
        until_epoch: where the trial ends, in epochs of the method's first stage; None, or all its epochs: it goes
            through every stage.
        lineage: the segments before the one whose hyperparameters the other fields say.
    """

    method: str
    dataset: Annotated[str, one_of(DATASETS)]
    model: Annotated[str, one_of(MODELS)]
    seed: int = Field(default=0, ge=0)
    variant: Literal["corrected"] = "corrected"
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0)
    augment: bool = True
    normalise: Literal["dataset", "imagenet"] = "dataset"
    precision: Literal["auto", "float32", "float64", "bf16"] = "auto"
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    compile: bool = False
    data_dir: str | None = None
    device: str = "auto"
    checkpoint_every_s: float = Field(default=60.0, ge=0)
    measure_latency: bool = False
    capture: bool = True
    until_epoch: int | None = Field(default=None, ge=1)
    lineage: tuple[Segment, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _compiles(self) -> TrialConfig:
        recipes = [getattr(self, name) for name in type(self).model_fields]
        if self.compile and any(isinstance(recipe, OpenRecipe) and recipe.backward for recipe in recipes):
            raise ValueError("compile is True, but backward pruning swaps layers' forward: leave one of them out")
        return self

    @property
    def parallel_pieces(self) -> int:
        """How many pieces of work the trial can have running at once, each with the resources of a trial."""
        return 1

    @property
    def id(self) -> str:
        """The trial's name: its method and a hash of every field that differs from its default."""
        return f"{self.method}-{content_hash(self.model_dump(mode='json', exclude_defaults=True, exclude=set(WHERE)))}"


class HasVariant(TrialConfig):
    """Configs of methods whose released code differs from their paper.

    Attributes:
        variant: ``corrected`` follows the paper; ``original`` does what the released code does, bugs included.
    """

    variant: Literal["corrected", "original"] = "corrected"  # type: ignore[assignment]  # more than its base knows


class StartsDense(TrialConfig):
    """Configs of methods that start from a dense network.

    Attributes:
        pretrain: how it is trained; shared by every trial that says the same.
        source_net: a file of weights instead (a state dict, or BiP's checkpoint.pth.tar), or ``torchvision`` for the
            ImageNet weights of ResNet18, ResNet34 or ResNet50; nothing is trained then.
    """

    pretrain: PretrainRecipe = PretrainRecipe()
    source_net: str | None = None

    @model_validator(mode="after")
    def _torchvision_has_it(self) -> StartsDense:
        if self.source_net == "torchvision" and self.model not in TORCHVISION:
            raise ValueError(f"source_net is 'torchvision', but {unknown_name('model', self.model, TORCHVISION)}")
        return self


def content_hash(content: Mapping[str, Any]) -> str:
    """12 hex digits of the SHA-256 of canonical JSON, with the schema version."""
    text = json.dumps({"schema": SCHEMA, **content}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
