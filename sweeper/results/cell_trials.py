"""The trials of a cell, and which of them are its figure: the best one, or those that confirm it (``confirm:``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.columns import config_column
from sweeper.results.bounds import missed_by
from sweeper.results.points import PointTrials, is_number
from sweeper.space.options.constraints import Constraint
from trials.storage.rows import Row


@dataclass(frozen=True)
class Confirmed:
    """The confirmations of a cell's best sample.

    Attributes:
        objective: column that must be known for a confirmation to count.
        asked: number of confirmations that the space asks for.
        trials: their rows of ``trials``, as far as they are scheduled.
        outside: number of complete ones outside the constraints; they count all the same.
        best_outside: whether the confirmed sample is outside the constraints, since no sample keeps them.
    """

    objective: str
    asked: int
    trials: tuple[Row, ...]
    outside: int = 0
    best_outside: bool = False

    @property
    def complete(self) -> list[Row]:
        """Rows of the complete confirmations, which make the figure."""
        return [row for row in self.trials if row["status"] == "complete" and is_number(row.get(self.objective))]

    @property
    def text(self) -> str:
        """How many of those that are asked for are complete, and what is wrong with them: ``2/3, 1 failed``."""
        failed = sum(row["status"] in ("failed", "complete") for row in self.trials) - len(self.complete)
        notes = [
            f"{failed} failed" if failed else "",
            f"{self.outside} outside the constraints" if self.outside else "",
            "no sample keeps the constraints" if self.best_outside else "",
        ]
        return ", ".join([f"{len(self.complete)}/{self.asked}", *filter(None, notes)])


@dataclass(frozen=True)
class CellTrials:
    """The trials of one cell.

    Attributes:
        group: the cell's grid values without the seed.
        seed: None if the seeds are those of replicates or confirmations.
        trials: those of the search.
        best: None if no complete point keeps the bounds; where it is confirmed, the one that misses them least.
        infeasible: number of complete trials outside the constraints.
        waiting: the progress of the other trials if there is no figure, otherwise empty.
        confirmed: the confirmations of the best trial; None if it is its own figure.
    """

    group: tuple[Any, ...]
    seed: Any
    trials: list[Row]
    best: PointTrials | None
    infeasible: int
    waiting: str = ""
    confirmed: Confirmed | None = None

    @property
    def figures(self) -> list[Row]:
        """The trials whose figures stand for the cell: the confirmations of the best point, or else its own."""
        if self.confirmed is not None:
            return self.confirmed.complete
        return [] if self.best is None else list(self.best.rows)

    @property
    def confirmed_trials(self) -> list[Row]:
        """The best point's trials, if it is confirmed: they are not the figure, but their warnings are shown."""
        return [] if self.confirmed is None or self.best is None else list(self.best.rows)

    @property
    def marked(self) -> list[Row]:
        """The trials whose warnings are shown beside the figure."""
        return [*self.figures, *self.confirmed_trials]

    @property
    def counted(self) -> list[Row]:
        """The trials of the search and those that confirm the best one."""
        return [*self.trials, *(self.confirmed.trials if self.confirmed else ())]


def confirmed_of(
    objective: str, asked: int, best: PointTrials, confirming: Sequence[Row], constraints: Sequence[Constraint]
) -> Confirmed:
    """The confirmations of ``best``, whose rows are given."""
    found = Confirmed(objective, max(asked, len(confirming)), tuple(confirming))
    outside = sum(missed_by(row, constraints) != 0 for row in found.complete)
    return Confirmed(objective, found.asked, found.trials, outside, best.missed(constraints) != 0)


def searched_values(best: Sequence[Row], search: Sequence[str], *, absent: bool = False) -> str:
    """What the best trials have in the searched fields, as one text; ``absent``: with fields that none of them has."""
    columns = {path: [trial.get(config_column(path)) for trial in best] for path in search}
    there = {path: values for path, values in columns.items() if absent or any(value is not None for value in values)}
    return "  ".join(f"{path}={_joined(values)}" for path, values in there.items())


def _joined(values: Sequence[Any]) -> str:
    """One value if the seeds agree, otherwise each seed's."""
    texts = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    return texts[0] if len(set(values)) == 1 else " | ".join(texts)
