"""Where in its course a trial reported a value, and what else of that row decides with what the value is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.space.pruner_steps import EpochSpan, Spans, StageLevel
from sweeper.space.values import finite_number

POSITION_COLUMNS = ("stage", "level", "epoch", "density", "prunable")
"""Columns of a row that a position has."""


@dataclass(frozen=True, slots=True)
class Position:
    """A row of a stage in which a trial may be stopped.

    Attributes:
        stage, level, epoch: as in the row; epochs count from 1.
        density: of the network at this row; None if the caller does not know it.
        weights: number of weights of which that is the share; None likewise.
        will_miss: whether it is certain at this row that the trial will miss its bounds.
        span: the epochs of this stage in this trial; None means those that all trials of the cell have there.
    """

    stage: str
    level: int
    epoch: int
    density: float | None = None
    weights: int | None = None
    will_miss: bool = False
    span: EpochSpan | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any], *, will_miss: bool = False) -> Position:
        """The position of a row of ``epochs``, or of what a trial sends of it."""
        weights = finite_number(row.get("prunable"))
        return cls(
            str(row["stage"]),
            int(row.get("level") or 0),
            int(row["epoch"]),
            finite_number(row.get("density")),
            None if weights is None else int(weights),
            will_miss,
        )

    @property
    def place(self) -> StageLevel:
        """The stage and the level."""
        return self.stage, self.level

    def equally_dense(self, other: Position) -> bool:
        """Whether both keep the same share, rounded to whole weights; an unknown density equals any."""
        if self.density is None or other.density is None:
            return True
        weights = [count for count in (self.weights, other.weights) if count]
        tolerance = 0.5 / min(weights) if weights else 0.0
        return abs(self.density - other.density) <= tolerance + 1e-9


def position_after(spans: Spans, step: int) -> Position | None:
    """The position after so many epochs of a trial's stoppable stages; None beyond their end."""
    for (stage, level), span in spans.items():
        if step <= span.count:
            return Position(stage, level, span.first + step, span=span)
        step -= span.count
    return None
