"""Whether a cell's search ends before its samples: a target is reached, or the search has come to a standstill.

Every decision is a function of which samples have which outcomes, so a driver that starts anew decides the same. Failed
trials are left out: they say nothing about the search, and may run again later. Samples that were asked for before go
on; if one of them improves on the best value, a search that stood still goes on, too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import optuna
from optuna.study import StudyDirection
from optuna.terminator import BaseImprovementEvaluator, EMMREvaluator, MedianErrorEvaluator, RegretBoundEvaluator
from optuna.trial import FrozenTrial, TrialState

from sweeper.search.outcomes import Outcome
from sweeper.space.options.stopping import Plateau, Terminator
from sweeper.space.space import Space
from trials.errors import exact


class EarlyEnd:
    """What a cell's search knows of ``stop_at`` and ``stop_when``.

    Args:
        study: returns the cell's study, for Optuna's terminators.
    """

    def __init__(self, space: Space, study: Callable[[], optuna.Study]) -> None:
        self._space, self._study = space, study
        self._rules = space.stop_at is not None or space.stop_when is not None
        self._values: dict[int, float] = {}  # by sample number, of trials that have ended and did not fail
        self._known: tuple[int, str | None] = (0, None)  # the reason for so many outcomes
        self._errors: dict[tuple[int, ...], float] = {}

    def tell(self, number: int, outcome: Outcome) -> None:
        """Take note of how a sample's trial has ended; only the first outcome of a sample counts."""
        if self._rules and outcome.state in (TrialState.COMPLETE, TrialState.PRUNED):
            self._values.setdefault(number, _feasible(outcome, self._space.objectives[0].sign))

    @property
    def reason(self) -> str | None:
        """Why the search ends; None if it goes on."""
        if self._known[0] != len(self._values):
            self._known = (len(self._values), self._find())
        return self._known[1]

    def _find(self) -> str | None:
        objective, target, rules = self._space.objectives[0], self._space.stop_at, self._space.stop_when
        values = [self._values[number] for number in sorted(self._values)]
        best = max(values)
        if target is not None and best >= objective.sign * target:
            return f"{objective.column} has reached {objective.sign * best:.6g} (stop_at: {exact(target)})"
        if rules is not None and rules.plateau is not None and _stands_still(values, rules.plateau):
            return f"the best {objective.column}, {objective.sign * best:.6g}, has {rules.plateau}"
        if rules is not None and rules.terminator is not None and self._terminates(rules.terminator):
            return f"{objective.column} has {rules.terminator}"
        return None

    def _terminates(self, rule: Terminator) -> bool:
        if sum(value > -math.inf for value in self._values.values()) < rule.least:
            return False
        study = self._study()
        complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental, and announced to leave Optuna with version 6
            left = _evaluator(rule, self._space.seed).evaluate(complete, study.direction)
            return bool(left < self._error(rule, complete, study.direction))

    def _error(self, rule: Terminator, complete: list[FrozenTrial], direction: StudyDirection) -> float:
        """What counts as little. The median over early trials is computed once, since it takes many fits."""
        if rule.error is not None:
            return rule.error
        early = tuple(trial.number for trial in complete[: rule.warm_up_trials + rule.n_initial_trials])
        if early not in self._errors:
            paired, options = (
                _evaluator(rule, self._space.seed),
                rule.model_dump(exclude={"name", "error", "min_n_trials"}),
            )
            self._errors = {early: MedianErrorEvaluator(paired, **options).evaluate(complete, direction)}
        return self._errors[early]


def _feasible(outcome: Outcome, sign: int) -> float:
    """The first objective's value, higher being better; -inf of a trial that is stopped or outside the constraints."""
    return -math.inf if outcome.shown is None else sign * outcome.shown


def _stands_still(values: list[float], rule: Plateau) -> bool:
    before, last = values[: -rule.samples], values[-rule.samples :]
    best = max(before, default=-math.inf)
    if best == -math.inf:  # no feasible value yet: the search goes on looking for one
        return False
    gain = max(last) - best
    return gain <= 0 or gain < rule.improvement


def _evaluator(rule: Terminator, seed: int) -> BaseImprovementEvaluator:
    """Make a terminator for one decision: one that has decided before would go on in its random sequence."""
    return EMMREvaluator(seed=seed) if rule.name == "emmr" else RegretBoundEvaluator(seed=seed)
