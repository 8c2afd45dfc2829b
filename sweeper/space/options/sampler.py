"""What a sampler is, and what it is told of a space."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from optuna.samplers import BaseSampler

from sweeper.space.distributions import Distribution
from sweeper.space.options.named_options import NamedOptions


@dataclass(frozen=True)
class Question:
    """The parts of a space that a sampler needs.

    Attributes:
        search: distributions by path.
        samples: number of samples per cell.
        objectives, constraints: their numbers.
        enqueued: points to try first.
    """

    search: Mapping[str, Distribution]
    samples: int
    objectives: int = 1
    constraints: int = 0
    enqueued: tuple[Mapping[str, Any], ...] = ()


class Sampler(NamedOptions):
    """Base of a sampler's options, which have Optuna's names."""

    learns: ClassVar[bool] = False
    """Whether the sampler uses results of trials that it did not suggest."""

    @abstractmethod
    def make(self, question: Question, seed: int, cell_seed: int) -> BaseSampler:
        """Create the sampler for one sample. ``seed`` differs per sample, ``cell_seed`` only per cell."""

    def check(self, question: Question) -> None:
        """Raise a UserError if this sampler does not support the question."""

    def remembered(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the attributes that it left on a trial as JSON-compatible values."""
        return attrs

    def recalled(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Invert :meth:`remembered`."""
        return attrs

    def _startup(self, question: Question, given: int | None) -> int:
        """Return the number of random startup samples: ``given``, or by default a third of all, at most 10."""
        return min(10, math.ceil(question.samples / 3)) if given is None else given
