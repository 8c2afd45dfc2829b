"""What chooses the hyperparameters of a cell's trials."""

from __future__ import annotations

from sweeper.search.population import CellPopulation
from sweeper.search.study import CellStudy
from sweeper.search.warm_start import Warm
from sweeper.space.grid.cells import Cell
from sweeper.space.space import Space


def study_of(space: Space, cell: Cell, warm: Warm) -> CellStudy | CellPopulation:
    """Whatever chooses the hyperparameters of a cell."""
    return CellStudy(space, cell, warm) if space.pbt is None else CellPopulation(space, cell, space.pbt)
