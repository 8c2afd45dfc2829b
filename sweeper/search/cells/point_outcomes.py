"""The outcome of a point from those of its replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from optuna.trial import TrialState

from sweeper.search.outcomes import FAILED, Outcome
from sweeper.space.space import Space


def outcome_of_point(space: Space, ended: Sequence[Outcome], *, dropped: bool = False) -> Outcome | None:
    """Return the outcome of a point as far as its replicates decide it; None as long as it runs.

    Args:
        space: with ``replicates``.
        ended: the outcomes of the replicates whose trials have ended, in the space's order.
        dropped: whether the race has dropped the point.
    """
    violations = worst_violations(ended)
    if any(outcome.state == TrialState.FAIL for outcome in ended):
        return FAILED
    stopped = next((outcome for outcome in ended if outcome.state == TrialState.PRUNED), None)
    if stopped is not None:
        return replace(stopped, violations=violations)
    if dropped:
        last = max((step for outcome in ended for step in outcome.curve), default=0)
        so_far = _judged(space, ended)[0]
        return Outcome(TrialState.PRUNED, None, violations, {last + len(ended): so_far})
    if len(ended) < len(space.replicate_values()):
        return None
    return Outcome(TrialState.COMPLETE, _judged(space, ended), violations)


def _judged(space: Space, ended: Sequence[Outcome]) -> tuple[float, ...]:
    """By objective, the judge's value of those of complete replicates."""
    assert space.replicates is not None
    judge = space.replicates.judge
    each = zip(*(outcome.values for outcome in ended if outcome.values is not None), strict=True)
    return tuple(judge.value(values, one.sign) for values, one in zip(each, space.objectives, strict=True))


def worst_violations(ended: Sequence[Outcome]) -> dict[str, float]:
    """Return by how much a point misses each bound: by as much as the worst of its replicates."""
    keys = dict.fromkeys(key for outcome in ended for key in outcome.violations)
    return {key: max(o.violations[key] for o in ended if key in o.violations) for key in keys}
