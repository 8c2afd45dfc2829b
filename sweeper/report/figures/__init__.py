"""The figures of a report, by name, in the order of the page. Each is one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from inspect import signature
from typing import Any

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


def draw_figure(name: str, gathered: Gathered, arguments: Mapping[str, Sequence[str]] | None = None) -> Figure:
    """Return a figure of a sweep.

    Args:
        name: one of :data:`REPORT_FIGURES`.
        gathered: the sweep.
        arguments: what the figure's ``draw`` takes besides, as texts: ``{"x": ["flops"]}``.

    Raises:
        UserError: there is no such figure or argument, or the sweep has nothing that it could show; the message says
            what lacks.
    """
    if name not in REPORT_FIGURES:
        raise UserError(unknown_name("figure", name, REPORT_FIGURES))
    drawing: Callable[..., Figure] = import_module(f"{__name__}.{name}").draw
    return drawing(gathered, **_parsed(name, drawing, arguments or {}))


def _parsed(name: str, drawing: Callable[..., Figure], arguments: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The arguments as ``draw`` takes them: one text each, or several where it takes a sequence."""
    taken = [one for one in signature(drawing).parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD][1:]
    severally = {one.name: "Sequence" in str(one.annotation) for one in taken}
    found: dict[str, Any] = {}
    for key, texts in arguments.items():
        if key not in severally:
            takes = f"takes {', '.join(severally)}" if severally else "takes nothing"
            raise UserError(f"the figure {name} was given {key}, but {takes} (--with NAME=VALUE)")
        if len(texts) > 1 and not severally[key]:
            raise UserError(f"the figure {name} was given {key} {len(texts)} times, but takes one value")
        found[key] = list(texts) if severally[key] else texts[0]
    return found
