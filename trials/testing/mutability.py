"""Whether the hyperparameters that a method calls mutable are used as soon as they change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel
from torch import Tensor
from torch.utils._pytree import tree_leaves

from trials.config.recipes import OneOf
from trials.config.trial_config import TrialConfig
from trials.dotted_paths import get_at
from trials.errors import UserError
from trials.methods import Method, segments
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.testing.requiring import demand, equal_bits
from trials.testing.small_runs import Storage, TrialOutcome, known
from trials.testing.watched import recorded

SEGMENT = 1
"""Epoch of the first stage after which the value changes."""


def require_mutable(
    kind: type[Method],
    config: TrialConfig,
    reference: TrialOutcome,
    first: Storage,
    folder: Path,
    others: Mapping[str, list[Any]],
) -> None:
    """Check that a new value of every path in ``mutable`` is used in the next step, and an old one changes nothing.

    Args:
        reference: outcome of the trial of ``config``, which is undivided.
        first: the storage that it ran in.
        others: by path, its value and others, as :func:`other_values` returns them.
    """
    if not kind.mutable:
        return
    name = kind.__name__
    divided = _divided(kind, config)
    storage = Storage(folder / "segments", first)
    storage.attempt(divided, f"the first segment of a trial of {name}")
    some = min(others)
    same = _Segment.run(kind, storage, divided, {some: others[some][0]})  # whatever path it names
    demand(
        not (differs := same.outcome.differs_from(reference)),
        f"{name} must go on in the next segment of a population as if there were none if {some} stays, but {differs} "
        "differs",
    )
    for path, (old, *new) in sorted(others.items()):
        changed = (_Segment.run(kind, storage, divided, {path: value}) for value in new)
        used = next((segment for segment in changed if segment.differs_from(same)), None)
        demand(
            used is not None,
            f"{name} calls {path} mutable, so a stage that is built with another value must use it in the next step, "
            f"but {' and '.join(map(str, new))} in place of {old} changes nothing: load_state_dict must not bring the "
            "old value back",
        )
    assert used is not None
    alone = Storage(folder / "alone", first).outcome(used.config, f"both segments of a trial of {name}")
    demand(
        not (differs := alone.differs_from(used.outcome)),
        f"{name} must compute the same bits whether a segment continues a checkpoint or computes all segments "
        f"itself, but {differs} differs",
    )


@dataclass(frozen=True)
class _Segment:
    """A second segment that has run.

    Attributes:
        tensors: what the first stage's state holds beside single numbers, after its last epoch.
    """

    config: TrialConfig
    outcome: TrialOutcome
    tensors: list[Tensor]

    def differs_from(self, other: _Segment) -> bool:
        return bool(self.outcome.differs_from(other.outcome)) or not equal_bits(self.tensors, other.tensors)

    @classmethod
    def run(cls, kind: type[Method], storage: Storage, parent: TrialConfig, values: Mapping[str, Any]) -> _Segment:
        whole = int(segments.first_stage(parent).epochs)
        config, states = segments.child(parent, values, whole), list[Any]()
        said = ", ".join(f"{path} {value}" for path, value in values.items())
        with known(METHODS, parent.method, recorded(kind, states)):
            outcome = storage.outcome(config, f"a segment of {kind.__name__} with {said}")
        found = [leaf for leaf in tree_leaves(states[-1]) if isinstance(leaf, Tensor) and leaf.numel() > 1]
        return cls(config, outcome, found)


def _divided(kind: type[Method], config: TrialConfig) -> TrialConfig:
    try:
        demand(
            segments.epochs(config) > SEGMENT,
            f"{kind.__name__} has mutable hyperparameters: give fields with two epochs in its first stage",
        )
        return parse({**config.model_dump(mode="json"), "until_epoch": SEGMENT})
    except UserError as error:
        raise AssertionError(
            f"{kind.__name__} has mutable hyperparameters, so its first stage must be one that can be divided: {error}"
        ) from None


def other_values(kind: type[Method], config: TrialConfig, values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """By path in ``mutable``, its value in ``config`` and other values that it may have.

    Args:
        values: by path, another value, where none can be derived.

    Raises:
        AssertionError: there is no such field, no other value can be derived, or the first stage cannot be divided.
    """
    if kind.mutable:
        _divided(kind, config)
    found = {path: _values_of(kind, config, path, values) for path in sorted(kind.mutable)}
    return {path: [old, *new] for path, (old, new) in found.items()}


def _values_of(kind: type[Method], config: TrialConfig, path: str, values: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    """The value of a field, and others that it may have."""
    try:
        old = get_at(config.model_dump(mode="json"), path)
    except KeyError:
        raise AssertionError(f"{kind.__name__}.mutable has {path}, but its config has no such field") from None
    if path in values:
        return old, [values[path]]
    *parents, last = path.split(".")
    owner: Any = config
    for parent in parents:
        owner = getattr(owner, parent)
    new = list(_others(type(owner), last, old))
    demand(
        bool(new),
        f"{path} is {old!r}, of which no other value can be derived: give check_method values={{{path!r}: ...}}",
    )
    return old, new


def _others(owner: type[BaseModel], name: str, old: Any) -> Iterator[Any]:
    if isinstance(old, bool):
        yield not old
    elif isinstance(old, int):
        yield old // 2 if old > 1 else old + 1
    elif isinstance(old, float):
        yield old / 2 if old else 0.05
    else:
        yield from (value for value in _choices(owner, name) if value != old and isinstance(old, str))


def _choices(owner: type[BaseModel], name: str) -> Iterator[str]:
    """The names that a field may have."""
    field = owner.model_fields[name]
    if get_origin(field.annotation) is Literal:
        yield from get_args(field.annotation)
    for rule in field.metadata:
        if isinstance(rule, AfterValidator) and isinstance(rule.func, OneOf):
            yield from rule.func.registry
