"""Checks of what ends a cell's search before its samples, and of points that are asked for twice."""

from __future__ import annotations

from collections.abc import Iterator

from sweeper.space.finite import finite_points
from sweeper.space.space import Space
from trials.errors import UserError, exact
from trials.methods.dense import copies_shared
from trials.methods.segments import planned_epochs


def check_ends(space: Space) -> None:
    """Check that ``stop_at``, ``stop_when`` and ``ask_again`` fit the rest of the space.

    Raises:
        UserError: one of them does not.
    """
    given = {
        "stop_at": None if space.stop_at is None else exact(space.stop_at),
        "stop_when": space.stop_when and str(space.stop_when.document()),
        "ask_again": None if space.ask_again is None else str(space.ask_again),
    }
    said = {name: f"{name} is {value}" for name, value in given.items() if value is not None}
    for name, text in said.items():
        if not space.search:
            raise UserError(f"{text}, but search is empty: a cell has one trial and no search; remove {name}")
        if space.pbt is not None:
            raise UserError(
                f"{text}, but pbt changes hyperparameters while its members train, and a generation runs whole: remove "
                f"{name}, and set pbt.generations to less"
            )
        if len(space.objectives) > 1 and name != "ask_again":
            raise UserError(
                f"{text}, but there are {len(space.objectives)} objectives, which give a front and no best value: have "
                f"one objective and bound the others by constraints, or remove {name}"
            )
    if space.stop_at is not None and space.objective.endswith("accuracy") and not 0 <= space.stop_at <= 1:
        raise UserError(f"{said['stop_at']}, but {space.objective} is a share, from 0 to 1: write 0.93 for 93 %")
    if space.stop_when is not None:
        space.stop_when.check(space.samples)
        _check_terminator(space, space.stop_when.terminator is not None)


def described_ends(space: Space) -> Iterator[str]:
    """Yield a line on each thing that may end a search before its samples, or a trial before its epochs."""
    objective, rules = space.objective, space.stop_when
    if space.stop_at is not None:
        yield f"a search ends once {objective} reaches {exact(space.stop_at)}"
    if rules is not None and rules.plateau is not None:
        yield f"a search ends once the best {objective} has {rules.plateau}"
    if rules is not None and rules.terminator is not None:
        yield f"a search ends once {objective} has {rules.terminator}"
    if space.trial_hours is not None:
        yield f"a trial ends after {exact(space.trial_hours)} hours"


def few_points(space: Space) -> str | None:
    """Return a line if a search has fewer points than samples, of which none is run twice; None otherwise."""
    if space.pbt is not None or not space.search or space.ask_again == 0:
        return None
    counts = {points.count for cell in space.cells() if (points := finite_points(space, cell)) is not None}
    if not counts or min(counts) >= space.samples:
        return None
    return f"{'a search has' if len(counts) == 1 else 'some searches have'} {min(counts)} points; none is run twice"


def too_few_epochs(space: Space) -> str | None:
    """Return a line if ``max_epochs`` may be less than any point takes, so that none is begun; None otherwise."""
    if space.max_epochs is None or space.pbt is not None:
        return None
    corners = ([c for c in space.corner_configs(cell) if not copies_shared(c)] for cell in space.cells())
    replicates = len(space.replicate_values())
    least = replicates * min(max(map(planned_epochs, of_cell), default=0) for of_cell in corners)
    if least <= space.max_epochs:
        return None
    of = f" with its {replicates} replicates" if replicates > 1 else ""
    return f"max_epochs is {space.max_epochs}, but a point may take {least} epochs{of}: none is begun"


def _check_terminator(space: Space, there: bool) -> None:
    if there and space.constraints:
        raise UserError(
            "stop_when.terminator is set, but Optuna's terminators do not know constraints: use stop_when.plateau"
        )
    conditional = next((path for path, distribution in space.search.items() if distribution.conditional), None)
    if there and conditional is not None:
        raise UserError(
            f"stop_when.terminator is set, but search.{conditional} has a condition, and Optuna's terminators need "
            "points that have all values: use stop_when.plateau"
        )
