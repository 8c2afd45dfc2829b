"""The outcome of a trial for a search: its state, its objectives' values, and by how much it misses its bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.trial import TrialState

from sweeper.search.pruning.positions import Position
from sweeper.space.options.constraints import Constraint
from sweeper.space.options.objectives import Objective
from sweeper.space.pruner_steps import Spans
from sweeper.space.values import finite_number
from trials.storage.trial_folder import State


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial, as a search gets it.

    Attributes:
        values: one per objective; None unless the trial is complete.
        violations: by :attr:`Constraint.key`; a trial with a value above 0 is infeasible.
        curve: the objective by step, that is, after each epoch (from 1) of the stages that may be stopped.
        reached: the same values, each with its position, for a pruner.
        will_miss: whether a trial that did not run to its end is certain to miss its bounds.
        spans: makes the epochs of the trial's stages; read where trials of a cell differ in them.
    """

    state: TrialState
    values: tuple[float, ...] | None = None
    violations: dict[str, float] = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)
    reached: tuple[tuple[Position, float], ...] = ()
    will_miss: bool = False
    spans: Callable[[], Spans] | None = field(default=None, compare=False, repr=False)

    @property
    def shown(self) -> float | None:
        """The first objective's value if the trial is complete and keeps its bounds, otherwise None."""
        return self.values[0] if self.values and not self.missed else None

    @property
    def missed(self) -> float:
        """By how much the trial misses its bounds in all; 0 if it keeps them."""
        return sum(max(violation, 0.0) for violation in self.violations.values())

    def without_curve(self) -> Outcome:
        """The same without what only a pruner looks at, for those who keep the outcomes of many trials."""
        if not (self.curve or self.reached or self.spans):
            return self
        return replace(self, curve={}, reached=(), spans=None)


RUNNING, FAILED = Outcome(TrialState.RUNNING), Outcome(TrialState.FAIL)


def outcome_of(
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    config: Mapping[str, Any],
    state: State,
    curve: Mapping[int, float] | None = None,
) -> Outcome:
    """The outcome of a finished trial. A complete one without an objective or a constrained column counts as failed."""
    figures = {**state.result, "seconds": state.seconds}
    violations = {}
    for constraint in constraints:
        value = finite_number(figures.get(constraint.column))
        if value is not None:
            violations[constraint.key] = constraint.violation(value, config)
    if state.status == "pruned":
        return Outcome(TrialState.PRUNED, None, violations, dict(curve or {}))
    values = [finite_number(figures.get(objective.column)) for objective in objectives]
    found = tuple(value for value in values if value is not None)
    if len(found) < len(objectives) or len(violations) < len(constraints):
        return FAILED
    return Outcome(TrialState.COMPLETE, found, violations, dict(curve or {}))
