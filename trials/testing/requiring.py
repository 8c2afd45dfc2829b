"""What all checks are made of: a claim with its sentence, global random states that differ, and bits that are equal."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from trials.errors import UserError
from trials.plugins.importing import admit_listed
from trials.registry import Registry

_T = TypeVar("_T")

_calls = itertools.count(1)


def demand(holds: bool, sentence: str) -> None:
    """Raise AssertionError with ``sentence`` unless ``holds``."""
    if not holds:
        raise AssertionError(sentence)


def object_named(registry: Registry[_T], name: str, plugins: Sequence[str]) -> _T:
    """The object of a name as in a config; ``plugins`` as in a file, relative to the working folder.

    Raises:
        UserError: there is none of this name.
    """
    if plugins:
        admit_listed({"plugins": list(plugins)}, Path.cwd())
    return registry.require(name, registry.kind)


def disturb() -> None:
    """Set the random states that all code of a process shares to others than at any call before."""
    call = next(_calls)
    random.seed(call)
    np.random.seed(call)
    torch.default_generator.manual_seed(call)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within it, global random states may be changed: they are put back afterwards."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def equal_bits(one: object, other: object) -> bool:
    """Whether two nested values are equal, tensors and numbers bit for bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal_bits(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(itertools.starmap(equal_bits, zip(one, other, strict=True)))
    return bool(one == other) or (one != one and other != other)


def copied_state(value: Any) -> Any:
    """A copy of a nested state that later changes of its tensors leave alone."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied_state(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [copied_state(each) for each in value]
    return value


def refusal_of(action: Callable[[], object], what: str) -> str | None:
    """The message with which ``action`` refuses its input; None if it does not.

    Raises:
        AssertionError: it raises something other than a UserError, or one of several lines.
    """
    try:
        action()
    except UserError as error:
        said = str(error)
        demand(bool(said) and "\n" not in said, f"{what} must be refused in one line, but the message is {said!r}")
        return said
    except Exception as error:
        raise AssertionError(
            f"{what} must be refused by a UserError that says value, rule and way out, but {type(error).__name__} was "
            f"raised: {error}"
        ) from error
    return None
