"""Every option of every method, from the registry: a small trial each, so that a new method or option is among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from tests.trials.small_trials import BASE, CONFIGS, RECIPE
from trials.config.recipes import OneOf
from trials.config.trial_config import TrialConfig
from trials.data import DataOptions, require_data
from trials.dotted_paths import set_at
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.preconditions import require_runnable
from trials.methods.registry import METHODS

COMMON = frozenset(TrialConfig.model_fields) - {"variant", "report"}
"""Fields of all trials, which are no options of a method."""

BACKWARD = {"p_prune": 0.5, "refresh_every": 1}

BESIDE: dict[str, dict[str, Any]] = {
    "pattern=nm": {"nm": [2, 4], "density": 0.5},
    "rewind=none": {"finetune": RECIPE},
}
"""What an option needs beside itself."""


def first_of(method: str) -> str:
    """The name of the method's first small trial."""
    return next(name for name, fields in CONFIGS.items() if fields["method"] == method)


def options(model: type[BaseModel], value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of what a config could have instead: other names and truth values."""
    for name, field in model.model_fields.items():
        now, path = getattr(value, name), f"{prefix}{name}"
        if (not prefix and name in COMMON) or name == "schedule":
            continue
        if isinstance(now, BaseModel):
            yield from options(type(now), now, f"{path}.")
        elif name == "backward":
            yield path, BACKWARD
        else:
            yield from ((path, other) for other in _names(field) if other != now)


def _names(field: FieldInfo) -> list[Any]:
    """The values of a field that has a fixed number of them; empty for others."""
    kinds = [field.annotation, *get_args(field.annotation)]
    found = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    found += [False, True] if bool in kinds else []
    for check in field.metadata:
        if isinstance(check, AfterValidator) and isinstance(check.func, OneOf):
            found += list(check.func.registry)
    return found


def variants() -> dict[str, dict[str, Any]]:
    """By name, the fields of each small trial, and of each method's first one with each of its options."""
    known_data = {"dataset": "digits"}  # tests register that of BASE when they run
    found = {name: {**BASE, **fields, **known_data} for name, fields in CONFIGS.items()}
    header = require_data("digits", None, DataOptions())
    known = {parse(fields).id for fields in found.values()}
    for method in METHODS:
        start = first_of(method)
        for path, value in options(type(parse(found[start])), parse(found[start])):
            name = f"{start}:{path}={value if isinstance(value, str | bool) else 'on'}"
            fields = parse(found[start]).model_dump(mode="json", exclude_unset=True)
            set_at(fields, path, value)
            fields |= BESIDE.get(name.partition(":")[2], {})
            try:
                config = parse(fields)
                require_runnable(config, header)
            except UserError:
                continue
            if config.id not in known:
                known.add(config.id)
                found[name] = fields
    return {name: {**fields, "dataset": BASE["dataset"]} for name, fields in found.items()}
