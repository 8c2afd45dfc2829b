"""Options of population based training (``pbt:``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from sweeper.space.values import mapping
from trials.errors import UserError, exact, shown
from trials.frozen import Frozen, validate


class Pbt(Frozen):
    """Population based training (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846), one population per cell.

    In each generation every member trains one segment; then the worst members continue from copies of the best.

    Attributes:
        population: members per cell.
        interval: epochs of the method's first stage per segment.
        generations: segments per member. The last segment is shorter if the stage has fewer epochs left; if it reaches
            the end of the stage, the trial continues with the method's further stages.
        quantile: share of the members that are replaced, and share from which the replacements are copied; rounded up
            to whole members, at most half of the population.
        perturb: factors; after a copy, a numeric hyperparameter is multiplied by one of them.
        resample_probability: probability of drawing a hyperparameter anew instead.
    """

    population: int = Field(ge=2, le=10_000)
    interval: int = Field(ge=1)
    generations: int = Field(ge=1)
    quantile: float = Field(default=0.25, gt=0, le=0.5)
    perturb: tuple[float, ...] = Field(default=(0.8, 1.2), min_length=1, strict=False)
    resample_probability: float = Field(default=0.25, ge=0, le=1)

    @field_validator("perturb")
    @classmethod
    def _change(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        for factor in value:
            if factor <= 0 or factor == 1:
                raise ValueError(f"perturb has {exact(factor)}, but must be factors above 0 that change a number")
        return value

    def __str__(self) -> str:
        return (
            f"population based training, {self.population} members x {self.generations} generations of "
            f"{self.interval} epochs; each generation, {self.replaced} of the worst are replaced by the best"
        )

    @property
    def samples(self) -> int:
        """Trials per cell: one per member and generation."""
        return self.population * self.generations

    @property
    def replaced(self) -> int:
        """Number of members that are replaced after a generation."""
        return min(math.ceil(self.population * self.quantile), self.population // 2)

    def until_epoch(self, generation: int, epochs: int) -> int:
        """Return the epoch at which a generation (0-based) ends, in a stage of ``epochs`` epochs."""
        return min((generation + 1) * self.interval, epochs)


def with_samples(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a space's content with ``samples`` set to the number of segments per cell.

    Raises:
        UserError: ``pbt`` is invalid, or ``samples`` has another value.
    """
    pbt: Pbt = validate(Pbt, mapping(content["pbt"], "pbt"), "pbt")
    if content.get("samples") not in (None, pbt.samples):
        raise UserError(
            f"samples is {shown(content['samples'])}, but pbt has {pbt.population} members x {pbt.generations} "
            f"generations = {pbt.samples} trials per cell: leave samples out, and set pbt.generations"
        )
    return {**content, "samples": pbt.samples}
