"""Finetuning under the mask that thresholds have left: the published method has none, a comparison may need it."""

from __future__ import annotations

from typing import Any

from trials.methods.base import TrainStage

DENSITIES = (
    "analytic_density",
    "density_of_weights",
    "analytic_density_of_weights",
    "density_of_parameters",
    "analytic_density_of_parameters",
)
"""Columns of the stage with thresholds that belong to the trial's result."""


class TrainUnderCut(TrainStage):
    """SGD under the mask of the last row before it, whose densities stay what they are."""

    def columns(self) -> dict[str, Any]:
        before = self.context.rows["epochs"][-1]
        return {**super().columns(), **{name: before[name] for name in DENSITIES}}
