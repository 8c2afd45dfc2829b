"""The protocol of a cell's search, which chooses the hyperparameters of its trials, and the choice of a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from sweeper.folder.search_ends import ShorterSearch
from sweeper.folder.sweep_folder import Record, Sample
from sweeper.search.cells.confirmed_study import ConfirmedStudy
from sweeper.search.cells.population import CellPopulation
from sweeper.search.cells.replicated_study import ReplicatedStudy
from sweeper.search.cells.study import CellStudy
from sweeper.search.outcomes import Outcome
from sweeper.search.pruning.positions import Position
from sweeper.search.warm_start import WarmStart
from sweeper.space.grid.cells import Cell
from sweeper.space.space import Space
from trials.config.trial_config import TrialConfig


class CellSearch(Protocol):
    """The search of one cell: asked for samples and told their outcomes. All its state is derived from samples."""

    cell: Cell

    @property
    def count(self) -> int:
        """Number of samples that the cell has."""

    @property
    def total(self) -> int:
        """Number of samples that the cell will have in the end."""

    @property
    def wants(self) -> bool:
        """Whether samples are left to ask for, now or later."""

    @property
    def ready(self) -> bool:
        """Whether the next sample can be decided now."""

    @property
    def shorter(self) -> ShorterSearch | None:
        """Whether the search has, or will have, fewer samples than the space gives it, and why; None otherwise."""

    @property
    def next_epochs(self) -> int:
        """Maximum number of epochs that the next sample's trial may take; of a new point, that all its trials may."""

    @property
    def next_is_owed(self) -> bool:
        """Whether the next sample's trial is of a point that has begun, and counts in :attr:`owed_epochs`."""

    @property
    def owed_epochs(self) -> int:
        """Maximum number of epochs that the trials may take which points still lack that have begun."""

    def ask(self) -> Sample:
        """The next sample. Call only when :attr:`ready`."""

    def config(self, sample: Sample) -> TrialConfig:
        """The config of a sample's trial."""

    def replay(self, sample: Sample, outcome: Outcome, record: Record | None = None) -> None:
        """Add a committed sample with its outcome, or as running. Call in the order of sample numbers.

        ``record`` is that of the sample's trial, if the caller has it: then its config is not built again.
        """

    def tell(self, sample: Sample, outcome: Outcome) -> None:
        """Record the outcome of the sample's trial. Only the first call for a sample counts."""

    def changed(self) -> Iterable[Sample]:
        """Samples whose attributes have changed since they were asked for, each once; they are to be committed."""

    def shown(self, sample: Sample, outcome: Outcome) -> float | None:
        """The value to show for an ended sample; None if it has none, or its point is not complete."""

    def judge(self, sample: Sample, step: int, value: float, at: Position | None = None) -> tuple[bool, dict[str, Any]]:
        """Whether a running trial ends after this step, and the attributes that the pruner left on it, as JSON.

        ``at``: the position of its row, with the density that it has reached.
        """

    def released(self) -> Iterable[str]:
        """Ids of trials whose checkpoints no other trial will continue; each id is returned once."""


def search_of(
    space: Space,
    cell: Cell,
    warm: WarmStart,
    first_samples: int | None = None,
    earlier: Sequence[Sequence[Mapping[str, int]]] = (),
) -> CellSearch:
    """The search of a cell: a population if the space has ``pbt``, otherwise an Optuna study, of replicates or not,
    confirmed or not.

    Args:
        first_samples: number of samples per cell with which the sweep began, if that is known.
        earlier: lists of replicates that the sweep has had.
    """
    if space.pbt is not None:
        return CellPopulation(space, cell, space.pbt)
    own = CellStudy(space, cell, warm, first_samples)
    study = own if space.replicates is None else ReplicatedStudy(own, space.replicates, earlier)
    return study if space.confirm is None else ConfirmedStudy(study, space.confirm)
