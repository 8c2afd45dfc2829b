"""A trial's config: frozen, typed, unknown keys refused; its name is the hash of what it says beyond the defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from trials.data import DATASETS
from trials.errors import UserError, unknown_name
from trials.models import MODELS
from trials.schedules import SCHEDULES, Schedule

SCHEMA = 1
"""Part of every name. Raise it when results of an equal config are no longer comparable."""

WHERE = frozenset({"data_dir", "device", "checkpoint_every_s"})
"""Fields that say where and how a trial runs, not what it computes: not part of its name."""


class Frozen(BaseModel):
    """Base of every config: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Recipe(Frozen):
    """How one stage trains: SGD with momentum, the learning rate set at the start of every epoch."""

    epochs: int = Field(default=100, ge=0)
    batch_size: int = Field(default=128, ge=1)
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: str = "cosine"
    warmup_epochs: int = Field(default=0, ge=0)
    warmup_lr: float = Field(default=0.1, gt=0)

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, value: str) -> str:
        return known("schedule", value, SCHEDULES)

    def lr_schedule(self) -> Schedule:
        """The learning rate as a function of the epoch (0-based)."""
        return Schedule(self.schedule, self.lr, self.epochs, self.warmup_epochs, self.warmup_lr)


class PretrainRecipe(Recipe):
    """Dense training: 200 epochs (BiP's shipped config; https://arxiv.org/abs/2210.04092)."""

    epochs: int = Field(default=200, ge=0)


class TrialConfig(Frozen):
    """What every trial says. A method adds its own fields in a subclass, beside the method."""

    method: str
    dataset: str
    model: str
    seed: int = Field(default=0, ge=0)
    variant: Literal["corrected"] = "corrected"
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0)
    augment: bool = True
    precision: Literal["auto", "float32", "float64", "bf16"] = "auto"
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    compile: bool = False
    data_dir: str | None = None
    device: str = "auto"
    checkpoint_every_s: float = Field(default=60.0, ge=0)

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, value: str) -> str:
        return known("dataset", value, DATASETS)

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str) -> str:
        return known("model", value, MODELS)

    @property
    def id(self) -> str:
        """The trial's name: its method and a hash of every field that differs from its default."""
        return f"{self.method}-{content_hash(self.model_dump(mode='json', exclude_defaults=True, exclude=set(WHERE)))}"


class StartsDense(TrialConfig):
    """Configs of methods that start from a dense network.

    Attributes:
        pretrain: how it is trained; shared by every trial that says the same.
        source_net: a file of weights instead (a state dict, or BiP's checkpoint.pth.tar); nothing is trained then.
    """

    pretrain: PretrainRecipe = PretrainRecipe()
    source_net: str | None = None


def content_hash(content: Mapping[str, Any]) -> str:
    """12 hex digits of the SHA-256 of canonical JSON, with the schema version."""
    text = json.dumps({"schema": SCHEMA, **content}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def known(kind: str, value: str, registry: Mapping[str, Any]) -> str:
    """``value`` if it is a key of ``registry``; otherwise a ValueError that names the nearest keys."""
    if value not in registry:
        raise ValueError(unknown_name(kind, value, registry))
    return value


def parse(content: object) -> TrialConfig:
    """The typed config of a mapping, by its ``method``.

    Raises:
        UserError: one line that says the field, its value, the rule and the way out.
    """
    from trials.methods import METHODS  # methods define their configs beside themselves, on top of this module

    if not isinstance(content, Mapping):
        raise UserError(f"a trial is {content!r}, but must be a mapping of fields to values")
    if "method" not in content:
        raise UserError(f"method is missing: add method: one of {', '.join(sorted(METHODS))}")
    method = content["method"]
    if not isinstance(method, str) or method not in METHODS:
        raise UserError(unknown_name("method", method, METHODS))
    config: TrialConfig = validate(METHODS[method].Config, content, "")
    return config


def validate(model: type[Any], content: object, where: str) -> Any:
    """``model`` of ``content``; what pydantic finds wrong becomes one UserError line."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError("; ".join(_explain(e, model, where) for e in error.errors()[:3])) from None


def _explain(error: ErrorDetails, model: type[BaseModel], where: str) -> str:
    path = ".".join([where, *map(str, error["loc"])]).strip(".")
    if error["type"] == "extra_forbidden":
        fields = _fields_at(model, error["loc"][:-1])
        parent = path.rpartition(".")[0]
        return unknown_name(f"{parent}: key" if parent else "key", error["loc"][-1], fields)
    if error["type"] == "invalid_key":
        return f"{error['input']!r} is not a known key"
    if error["type"] == "missing":
        return f"{path} is missing: add it"
    rule = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("Input should ")
    if error["type"] == "value_error":  # our own validators say the field's last name and its value themselves
        parent = path.rpartition(".")[0] if rule.startswith(path.rpartition(".")[2]) else path
        return f"{parent}.{rule}" if parent else rule
    return f"{path} is {error['input']!r}, but must be {rule}"


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The field names of the model that ``path`` leads to; empty where it leads to no model."""
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return list(getattr(current, "model_fields", {}))
