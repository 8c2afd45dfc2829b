"""Resources per trial (``resources:``)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema, field_validator, model_serializer

from trials.errors import UserError, exact, shown
from trials.frozen import Frozen

_UNITS = {
    "": 1,
    "B": 1,
    **{f"{letter}{tail}": 1000**power for power, letter in enumerate("KMGT", 1) for tail in ("", "B")},
    **{f"{letter}I{tail}": 1024**power for power, letter in enumerate("KMGT", 1) for tail in ("", "B")},
}
"""Bytes of each unit, in capitals."""

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?(?:[eE]\+?\d+)?)\s*([A-Za-z]*)")

_OWN = {"CPU": "cpu", "GPU": "gpu", "memory": "memory"}
"""Ray's resources that have a field here."""

_WHOLE = ("TPU", "neuron_cores", "NPU", "HPU", "RBLN", "FURIOSA")
"""Resources that Ray hands out as numbered devices: above 1, only whole ones."""

_ON_CARDS = ("GPU", *_WHOLE)
"""Resources of which a trial's fraction lies on one card, or another unit."""

SMALLEST = 1e-4
"""Ray counts resources in steps of this size."""

MOST_MEMORY_B = 2**63 - 1
"""Bytes beyond which Ray cannot count memory."""


class Resources(Frozen):
    """What a trial takes of a machine, in Ray's terms. ``gpu: 0.25`` runs four trials on one GPU.

    They decide where and how many trials run at once, and are no part of a trial's name. Of ``memory`` and ``custom``,
    Ray only keeps count: a trial that uses more is not stopped.

    Attributes:
        cpu: CPU cores of a trial.
        gpu: GPUs of a trial; a fraction shares one card.
        memory: main memory of a trial: bytes, or text such as 8GB (10^9 bytes each) or 8GiB (2^30).
        accelerator_type: kind of card that the trial's machine must have, by Ray's name, such as H100.
        custom: amounts of further resources that machines offer, by Ray's name, as in ``ray start --resources``.
    """

    cpu: float = Field(default=1, ge=SMALLEST, allow_inf_nan=False)
    gpu: float = Field(default=0, ge=0, allow_inf_nan=False)
    memory: Annotated[
        int | None,
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "integer", "minimum": 1},
                    {"type": "string", "pattern": r"^\s*\d+(\.\d+)?([eE]\+?\d+)?\s*([KMGTkmgt][Ii]?)?[Bb]?\s*$"},
                    {"type": "null"},
                ],
                "default": None,
            }
        ),
    ] = Field(default=None, ge=1, le=MOST_MEMORY_B)
    accelerator_type: Annotated[str, Field(min_length=1)] | None = None
    custom: dict[str, Annotated[float, Field(ge=SMALLEST, allow_inf_nan=False)]] = Field(default_factory=dict)

    @field_validator("gpu")
    @classmethod
    def _whole_cards(cls, value: float) -> float:
        if value > 1 and not value.is_integer():
            raise UserError(f"resources.gpu is {exact(value)}, but must be a whole number, or a fraction up to 1")
        if 0 < value < SMALLEST:
            raise UserError(f"resources.gpu is {value}, but must be 0, or at least {SMALLEST}")
        return value

    @field_validator("memory", mode="before")
    @classmethod
    def _in_bytes(cls, value: object) -> object:
        if isinstance(value, int | float) and value > MOST_MEMORY_B:
            raise UserError(f"resources.memory is {shown(value)}, but must be at most {MOST_MEMORY_B} bytes")
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if not isinstance(value, str):
            return value
        found = _AMOUNT.fullmatch(value.strip())
        factor = _UNITS.get(found[2].upper()) if found else None
        amount = float(found[1]) * factor if found and factor else 0.0
        if amount < 1:
            rule = "but must be bytes, or a number with a unit: B, KB, MB, GB, TB, KiB, MiB, GiB or TiB"
            raise UserError(f"resources.memory is {shown(value)}, {rule}")
        if amount > MOST_MEMORY_B:
            raise UserError(f"resources.memory is {shown(value)}, but must be at most {MOST_MEMORY_B} bytes")
        return round(amount)

    @field_validator("accelerator_type")
    @classmethod
    def _is_one_word(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", value):
            raise UserError(f"resources.accelerator_type is {value!r}, but must be one of Ray's names, such as H100")
        return value

    @field_validator("custom", mode="before")
    @classmethod
    def _is_mapping(cls, value: object) -> object:
        named = isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
        if value is not None and not named:
            raise UserError(f"resources.custom is {value!r}, but must be a mapping of Ray's names to amounts")
        return {} if value is None else value

    @field_validator("custom")
    @classmethod
    def _are_custom(cls, value: dict[str, float]) -> dict[str, float]:
        for name, amount in value.items():
            where = f"resources.custom has {name!r}"
            if name in _OWN:
                raise UserError(f"{where}, but that is resources.{_OWN[name]}: set it there")
            if name.startswith("accelerator_type:"):
                raise UserError(f"{where}, but that is resources.accelerator_type: set it there")
            if name == "object_store_memory" or not name.strip():
                raise UserError(f"{where}, which Ray gives to no trial: leave it out")
            if name in _WHOLE and amount > 1 and not amount.is_integer():
                raise UserError(
                    f"resources.custom.{name} is {exact(amount)}, but must be a whole number, or a fraction up to 1"
                )
        return value

    @model_serializer(mode="wrap")
    def _as_given(self, written: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Write the fields that are set, so that spaces without memory and the like are written as they always were."""
        return {name: value for name, value in written(self).items() if name in ("cpu", "gpu") or value}

    def of_ray(self) -> dict[str, float]:
        """Return the amounts by Ray's names, without those that are 0."""
        wanted = {"CPU": self.cpu, "GPU": self.gpu, "memory": float(self.memory or 0), **self.custom}
        if self.accelerator_type is not None:
            wanted[f"{ACCELERATOR}{self.accelerator_type}"] = ACCELERATOR_SHARE
        return {name: amount for name, amount in wanted.items() if amount}


ACCELERATOR = "accelerator_type:"
"""Prefix of the resource that a machine with a kind of card has."""

ACCELERATOR_SHARE = 0.001
"""What a trial that asks for a kind of card takes of that resource, of which each machine has 1: as Ray's own tasks."""


def amounts_text(resources: Mapping[str, float]) -> str:
    """Return amounts by Ray's names as people read them: ``CPU 1, memory 8 GB, accelerator_type H100``."""
    return ", ".join(_amount_text(name, amount) for name, amount in resources.items())


def _amount_text(name: str, amount: float) -> str:
    if name.startswith(ACCELERATOR):
        has = "" if amount else "no "
        return f"{has}{ACCELERATOR[:-1]} {name.removeprefix(ACCELERATOR)}"
    return f"{name} {amount / 1e9:.4g} GB" if name == "memory" else f"{name} {amount:g}"


def on_one_card(name: str, amount: float) -> int | None:
    """How many such amounts lie on one card, or another unit that Ray does not divide; None if they need not."""
    return math.floor(1 / amount + 1e-9) if name in _ON_CARDS and amount < 1 else None


def units_in(name: str, there: float, amount: float) -> int:
    """How often a machine that has so much of a resource holds an amount of it; a fraction of a card lies on one."""
    per_card = on_one_card(name, amount)
    if per_card is None:
        return math.floor(there / amount + 1e-9)
    cards = math.floor(there + 1e-9)
    return cards * per_card + math.floor(max(there - cards, 0.0) / amount + 1e-9)
