"""A trial's config: frozen, typed, unknown keys refused; its name is the hash of what it says beyond the defaults."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from trials.data import DATASETS
from trials.errors import UserError, unknown_name
from trials.frozen import SCHEMA, Frozen, validate
from trials.models import MODELS
from trials.models.imagenet_resnet import TORCHVISION
from trials.schedules import SCHEDULES, PiecewiseConstant, Schedule, read_lr_steps

WHERE = frozenset({"data_dir", "device", "checkpoint_every_s", "measure_latency", "capture"})
"""Fields that say where and how a trial runs, not what it computes: not part of its name."""


def one_of(registry: Collection[str]) -> AfterValidator:
    """For a field's annotation: the value must be in ``registry`` as it is when a config is read."""

    def check(value: str, info: ValidationInfo) -> str:
        if value not in registry:
            raise ValueError(unknown_name(str(info.field_name), value, registry))
        return value

    return AfterValidator(check)


RATES = ("lr", "schedule", "warmup_epochs", "warmup_lr")
"""What a recipe says of its learning rate, unless ``lr_steps`` does."""


class BackwardConfig(Frozen):
    """Backward-only pruning (:mod:`trials.backward`): dL/dx passes through pruned weights, all else is unchanged.

    Attributes:
        p_prune: share of units that are candidates: those smallest over all convolutions taken together.
        p_bern: probability with which a candidate is pruned; drawn at every forward pass.
        pattern: what a unit is. The released code and the paper prune single weights here.
        linear: whether Linear layers take part; in the released code they never do. Pattern weight only.
        refresh_every: training forward passes between two selections of the candidates; 0: only the first selects, as
            in the released code, and the candidates go stale while the weights train.
    """

    p_prune: float = Field(default=0.3, ge=0, lt=1)
    p_bern: float = Field(default=1.0, ge=0, le=1)
    pattern: Literal["weight", "kernel", "kernel_mean", "filter_l1"] = "weight"
    linear: bool = False
    refresh_every: int = Field(default=100, ge=0)

    @model_validator(mode="after")
    def _linear_has_weights_only(self) -> BackwardConfig:
        if self.linear and self.pattern != "weight":
            raise ValueError(f"linear is true, but Linear layers have no pattern {self.pattern!r}: use 'weight'")
        return self


class OpenRecipe(Frozen):
    """How a stage trains that says itself when it is done: SGD with momentum at a constant learning rate.

    ``backward``: whether, and how, its backward passes see pruned weights.
    """

    batch_size: int = Field(default=128, ge=1)
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    backward: BackwardConfig | None = None

    @property
    def all_epochs(self) -> float:
        """After how many epochs the stage ends: infinity where the stage says it."""
        return math.inf

    def lr_schedule(self) -> Callable[[int], float]:
        """The learning rate as a function of the epoch (0-based)."""
        return lambda epoch: self.lr


class Recipe(OpenRecipe):
    """How one stage trains: SGD with momentum, the learning rate set at the start of every epoch.

    Attributes:
        lr_steps: rates by the epoch from which they hold, instead of all that the other fields say of them. Also as
            GReg's text: ``0:0.1,100:0.01,150:0.001``.
    """

    epochs: int = Field(default=100, ge=0)
    schedule: Annotated[str, one_of(SCHEDULES)] = "cosine"
    warmup_epochs: int = Field(default=0, ge=0)
    warmup_lr: float = Field(default=0.1, gt=0)
    lr_steps: Annotated[tuple[tuple[int, float], ...] | None, BeforeValidator(read_lr_steps)] = None

    @model_validator(mode="after")
    def _one_source_of_rates(self) -> Recipe:
        for name in RATES if self.lr_steps is not None else ():
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(f"{name} is {value!r}, but lr_steps says every rate: leave one of them out")
        return self

    @property
    def all_epochs(self) -> float:
        return self.epochs + self.warmup_epochs

    def lr_schedule(self) -> Callable[[int], float]:
        """The learning rate as a function of the epoch (0-based)."""
        if self.lr_steps is not None:
            return PiecewiseConstant(self.lr_steps)
        return Schedule(self.schedule, self.lr, self.epochs, self.warmup_epochs, self.warmup_lr)


class PretrainRecipe(Recipe):
    """Dense training: 200 epochs (BiP's shipped config; https://arxiv.org/abs/2210.04092)."""

    epochs: int = Field(default=200, ge=0)


class Segment(Frozen):
    """An earlier stretch of a trial whose hyperparameters change on the way (see trials/lineage.py).

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
    def side_by_side(self) -> int:
        """How many pieces of work the trial can have running at once, each with the resources of a trial."""
        return 1

    @property
    def id(self) -> str:
        """The trial's name: its method and a hash of every field that differs from its default."""
        return f"{self.method}-{content_hash(self.model_dump(mode='json', exclude_defaults=True, exclude=set(WHERE)))}"


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


def parse(content: object) -> TrialConfig:
    """The typed config of a mapping, by its ``method``.

    Raises:
        UserError: one line that says the field, its value, the rule and the way out.
    """
    from trials import lineage
    from trials.methods import METHODS  # methods define their configs beside themselves, on top of this module

    if not isinstance(content, Mapping):
        raise UserError(f"a trial is {content!r}, but must be a mapping of fields to values")
    if "method" not in content:
        raise UserError(f"method is missing: add method: one of {', '.join(sorted(METHODS))}")
    method = content["method"]
    if not isinstance(method, str) or method not in METHODS:
        raise UserError(unknown_name("method", method, METHODS))
    config: TrialConfig = validate(METHODS[method].Config, content, "")
    lineage.check(config)
    return config
