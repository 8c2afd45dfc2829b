"""What chooses the hyperparameters of a cell's trials: the protocol that a plan knows, and which one a cell gets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from sweeper.folder.sweep_folder import Sample
from sweeper.search.outcomes import Outcome
from sweeper.search.population import CellPopulation
from sweeper.search.study import CellStudy
from sweeper.search.warm_start import WarmStart
from sweeper.space.grid.cells import Cell
from sweeper.space.space import Space
from trials.config.trial_config import TrialConfig


class CellSearch(Protocol):
    """The search of one cell: asked for samples, told what they came to. Everything in it is derived from samples."""

    @property
    def count(self) -> int:
        """How many samples the cell has."""

    @property
    def total(self) -> int:
        """How many samples the cell will have."""

    @property
    def wants(self) -> bool:
        """Whether there is a sample to ask for, now or later."""

    @property
    def ready(self) -> bool:
        """Whether the next sample can be decided now."""

    @property
    def next_epochs(self) -> int:
        """The most epochs that the next sample's trial may take."""

    def ask(self) -> Sample:
        """The next sample. Only when :attr:`ready`."""

    def config(self, sample: Sample) -> TrialConfig:
        """The trial of a sample."""

    def replay(self, sample: Sample, outcome: Outcome) -> None:
        """Add a committed sample as it ended, or as running. In the order of their numbers."""

    def tell(self, sample: Sample, outcome: Outcome) -> None:
        """How the sample's trial ended. Only the first telling of a sample counts."""

    def judge(self, sample: Sample, step: int, value: float) -> tuple[bool, dict[str, Any]]:
        """Whether a running trial ends after this step, and what the pruner leaves on its trial, as JSON."""

    def released(self) -> Iterable[str]:
        """Trials whose checkpoints no other trial will continue, each once."""


def search_of(space: Space, cell: Cell, warm: WarmStart) -> CellSearch:
    """The search of a cell: an Optuna study, or a population where the space says ``pbt``."""
    return CellStudy(space, cell, warm) if space.pbt is None else CellPopulation(space, cell, space.pbt)
