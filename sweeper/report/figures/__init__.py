"""The figures of a report, by name, in the order of the page. Each is one file."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from trials.errors import UserError, unknown_name

REPORT_FIGURES = (
    "accuracy_density",
    "pareto_front",
    "objective_fronts",
    "learning_curves",
    "layer_density",
    "regrowth",
    "single_layers",
    "importance",
    "slices",
    "parallel_coordinates",
    "lineage",
)
"""Names of the figures, as ``--figure`` takes them. The module of that name draws it, by its function ``draw``."""


def draw_figure(name: str, gathered: Gathered) -> Figure:
    """Return a figure of a sweep.

    Raises:
        UserError: there is no such figure, or the sweep has nothing that it could show; the message says what lacks.
    """
    if name not in REPORT_FIGURES:
        raise UserError(unknown_name("figure", name, REPORT_FIGURES))
    drawing: Callable[[Gathered], Figure] = import_module(f"{__name__}.{name}").draw
    return drawing(gathered)
