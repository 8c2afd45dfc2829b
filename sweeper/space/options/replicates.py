"""Replicates (``replicates:``): every point of a search runs with several seeds, and is judged by all of them.

What a single seed says of a point mixes the hyperparameters' effect with the seed's. A point with replicates is asked
for once, its trials differ in their seeds only, and the search is told one value: what the judge makes of theirs.
"""

from __future__ import annotations

import itertools
import statistics
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from sweeper.means import deviation_of, mean_of
from sweeper.space.options.named_options import NamedOptions, read_named_options
from sweeper.space.values import mapping, scalars
from trials.errors import UserError, exact, shown
from trials.frozen import Frozen, validate

REPLICATE_PATHS = ("seed", "split_seed")
"""Fields in which replicates may differ: those that decide random draws, and nothing else."""


class PointJudge(NamedOptions):
    """Base of what makes one value of those of a point's replicates."""

    @abstractmethod
    def value(self, values: Sequence[float], sign: int) -> float:
        """Return the value of a point.

        Args:
            values: those of its replicates, at least one.
            sign: 1 if higher values are better, -1 if lower ones are.
        """


class JudgeByMean(PointJudge):
    """The arithmetic mean."""

    name: Literal["mean"] = "mean"

    def value(self, values: Sequence[float], sign: int) -> float:
        return mean_of(values)


class JudgeByMedian(PointJudge):
    """The median, which one bad seed hardly moves."""

    name: Literal["median"] = "median"

    def value(self, values: Sequence[float], sign: int) -> float:
        middle = (statistics.median_low(values), statistics.median_high(values))
        return mean_of(middle)  # of any two numbers, where their sum may be infinite


def _spread(values: Sequence[float]) -> float:
    try:
        return statistics.stdev(values)
    except OverflowError:  # of figures near the largest float64
        return deviation_of(values)


class JudgeByLowerBound(PointJudge):
    """The mean less ``k`` standard deviations (ddof 1), plus them where lower values are better: prefers steady points.

    Attributes:
        k: number of standard deviations.
    """

    name: Literal["lower_bound"] = "lower_bound"
    k: float = Field(default=1.0, ge=0)

    def value(self, values: Sequence[float], sign: int) -> float:
        return mean_of(values) - (sign * self.k * _spread(values) if self.k and len(values) > 1 else 0.0)


JUDGES: dict[str, type[PointJudge]] = {
    "lower_bound": JudgeByLowerBound,
    "mean": JudgeByMean,
    "median": JudgeByMedian,
}


class Replicates(Frozen):
    """The replicates of every point.

    Attributes:
        values: by field, the values of the replicates: seed, split_seed. Two fields give their combinations.
        judge: makes one value of those of a point's replicates.
        race: whether a point's replicates run one after another, and stop once the point can no longer matter
            (:mod:`sweeper.search.cells.racing`).
    """

    values: dict[str, tuple[int, ...]]
    judge: PointJudge = JudgeByMean()
    race: bool = False

    def points(self) -> list[dict[str, int]]:
        """Return what each replicate sets in a point's config, by dotted path."""
        return [dict(zip(self.values, each, strict=True)) for each in itertools.product(*self.values.values())]

    def check(self) -> None:
        """Check that there are enough to race, or to have a standard deviation: of one, both do nothing.

        Raises:
            UserError: there is one.
        """
        if len(self.points()) > 1:
            return
        rule = "which needs at least 2 replicates of a point, but replicates.values gives 1: give more"
        if self.race:
            raise UserError(f"replicates.race is true, {rule}, or set race: false")
        if isinstance(self.judge, JudgeByLowerBound) and self.judge.k:
            raise UserError(f"replicates.judge is lower_bound, {rule}, or write judge: mean")

    def document(self) -> dict[str, Any]:
        """Return the section in the form of a space file."""
        content: dict[str, Any] = {"values": {path: list(values) for path, values in self.values.items()}}
        return {**content, "judge": self.judge.document(), "race": self.race}

    def __str__(self) -> str:
        values = "; ".join(f"{path} {', '.join(map(str, values))}" for path, values in self.values.items())
        k = f" (k {exact(self.judge.k)})" if isinstance(self.judge, JudgeByLowerBound) else ""
        raced = ", raced: a point that can no longer matter gets no more of them" if self.race else ""
        return f"every point runs with {values}, and is judged by their {self.judge.name.replace('_', ' ')}{k}{raced}"


def read_replicates(content: object) -> Replicates | None:
    """Parse ``replicates``; null means that a point is one trial.

    Raises:
        UserError: it is no mapping of ``values`` (of ``seed`` or ``split_seed`` to distinct whole numbers), ``judge``
            and ``race``.
    """
    if content is None or isinstance(content, Replicates):
        return content
    example = "{values: {seed: [0, 1, 2]}, judge: mean}"
    if not isinstance(content, Mapping):
        raise UserError(f"replicates is {shown(content)}, but must be a mapping such as {example}")
    if "values" not in content:
        raise UserError(f"replicates.values is missing: write replicates: {example}, or remove replicates")
    given = mapping(content["values"], "replicates.values")
    if not given:
        raise UserError(f"replicates.values is {{}}, but must say in what replicates differ: write {example}")
    values = {str(path): _read_values(str(path), given[path]) for path in given}
    judge: PointJudge = content.get("judge", "mean")
    if not isinstance(judge, PointJudge):
        judge = read_named_options(judge, JUDGES, "replicates.judge")
    rest = {key: value for key, value in content.items() if key not in ("values", "judge")}
    found: Replicates = validate(Replicates, {"values": values, "judge": judge, **rest}, "replicates")
    return found


def _read_values(path: str, content: object) -> tuple[int, ...]:
    if path not in REPLICATE_PATHS:
        raise UserError(
            f"replicates.values has {path!r}, but replicates of a point differ in their random draws and nothing else "
            f"({', '.join(REPLICATE_PATHS)}): put it in grid"
        )
    where = f"replicates.values.{path}"
    values = scalars(content, where)
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UserError(f"{where} has {shown(value)}, but seeds must be whole numbers of at least 0")
    return tuple(value for value in values if isinstance(value, int))
