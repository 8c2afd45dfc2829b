"""When a cell's search ends before its samples (``stop_when``): without progress, or with little left to gain."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from trials.errors import UserError, exact
from trials.frozen import Frozen


class Plateau(Frozen):
    """A search ends once its best value has stood still.

    Attributes:
        samples: number of last samples over which the best feasible value must not have improved. Samples count in the
            order of their numbers once their trials have ended; failed ones do not count.
        improvement: change of the objective from which on it has improved; with 0 any change counts.
    """

    samples: int = Field(ge=1)
    improvement: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    def __str__(self) -> str:
        by = f" by {exact(self.improvement)}" if self.improvement else ""
        return f"not improved{by} in its last {self.samples} samples"


class Terminator(Frozen):
    """A search ends once Optuna estimates that little is left to gain (``optuna.terminator``).

    Attributes:
        name: the estimate: ``emmr`` (https://proceedings.mlr.press/v206/ishibashi23a.html), the expected minimum model
            regret, or ``regret_bound`` (https://proceedings.mlr.press/v188/makarova22a.html). Both fit a Gaussian
            process to the complete trials.
        error: what is little: the search ends where the estimate is below this. It is one of the objective with
            ``regret_bound``, of the objective in standard deviations with ``emmr``. By default a share of
            ``threshold_ratio`` of the estimate's median over its early trials.
        min_n_trials: number of complete trials before a search may end.
        warm_up_trials: without ``error``, number of first complete trials that the median leaves out.
        n_initial_trials: without ``error``, number of complete trials after these over which the median goes.
        threshold_ratio: without ``error``, share of the median.
    """

    name: Literal["emmr", "regret_bound"] = "emmr"
    error: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    min_n_trials: int = Field(default=20, ge=2)
    warm_up_trials: int = Field(default=10, ge=0)
    n_initial_trials: int = Field(default=20, ge=1)
    threshold_ratio: float = Field(default=0.01, gt=0, allow_inf_nan=False)

    def __str__(self) -> str:
        return f"little left to gain by Optuna's {self.name}"

    @property
    def least(self) -> int:
        """Number of complete trials without which it never ends a search."""
        return max(self.min_n_trials, 0 if self.error else self.warm_up_trials + self.n_initial_trials)


class StopWhen(Frozen):
    """Ends a cell's search before its samples; with both rules, whichever holds first.

    Attributes:
        plateau: the best value has not improved for so many samples.
        terminator: Optuna estimates that little is left to gain.
    """

    plateau: Plateau | None = None
    terminator: Terminator | None = None

    @field_validator("terminator", mode="before")
    @classmethod
    def _read_terminator(cls, content: object) -> object:
        return {"name": content} if isinstance(content, str) else content

    def document(self) -> dict[str, Any]:
        """Return the section in the form of a space file."""
        return self.model_dump(mode="json", exclude_none=True)

    def check(self, samples: int) -> None:
        """Check that a rule is given, and that each can end a search of so many samples.

        Raises:
            UserError: none is, or one of them cannot.
        """
        if self.plateau is None and self.terminator is None:
            raise UserError(
                "stop_when has no rule: write {plateau: {samples: 10, improvement: 0.001}} or {terminator: emmr}, or "
                "remove stop_when"
            )
        if self.plateau is not None and self.plateau.samples + 1 >= samples:
            raise UserError(
                f"stop_when.plateau.samples is {self.plateau.samples}, but must be less than {samples - 1}, since one "
                f"of the {samples} samples is what the others are compared with: no search would end early"
            )
        if self.terminator is not None and self.terminator.least >= samples:
            raise UserError(
                f"stop_when.terminator needs {self.terminator.least} complete trials, but samples is {samples}: no "
                "search would end early; set error and min_n_trials to less, or samples to more"
            )
