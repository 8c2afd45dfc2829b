"""Importance of each hyperparameter in each cell, by Optuna: which of them the objective depended on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from sweeper.report.elements.axes import SIZE_PARAMS
from sweeper.report.elements.importances import (
    FEWEST_POINTS,
    CellImportances,
    ImportanceEvaluator,
    affordable,
    importances_in,
)
from sweeper.report.elements.panels import choice, chosen_title, only_chosen, short_keys
from sweeper.report.elements.searched import Searched, searched
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from trials.errors import UserError, listed, unknown_name

_EVALUATORS: dict[str, str] = {"fanova": "fANOVA (64 trees, seed 0)", "ped_anova": "PED-ANOVA"}

_MOST_REASONS = 5
"""Maximum number of cells whose reason a note says one by one."""


def draw(gathered: Gathered, evaluator: str = "auto") -> Figure:
    """Return the importances (%) of the hyperparameters by cell, as a heat map of cells by hyperparameters.

    Args:
        gathered: the sweep.
        evaluator: ``fanova`` (Hutter et al. 2014), ``ped_anova`` (Watanabe et al. 2023), or ``auto``: the former unless
            it would take long. They are Optuna's; both are told complete points alone.

    Raises:
        UserError: the sweep has no search, no cell has enough complete points, or there is no such evaluator.
    """
    if evaluator not in (*_EVALUATORS, "auto"):
        raise UserError(unknown_name("evaluator", evaluator, (*_EVALUATORS, "auto")))
    found = searched(gathered)
    chosen = _chosen(found, evaluator)
    each = [importances_in(found, cell, name, chosen) for name in found.objectives for cell in found.cells]
    lacking = _lacking(each)
    known = [one for one in each if one.shares]
    if not known:
        raise UserError(f"{gathered.sweep.path.name} has no cell whose hyperparameters could be compared: {lacking}")
    rows = _rows(known)
    counts = sorted({one.points for one in known})
    many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    notes = [f"Optuna's {_EVALUATORS[chosen]} on {many} complete points per cell"]
    partial = sorted({path for one in known for path in found.search} - set(rows["hyperparameter"]))
    if partial:
        notes.append(f"left out, as no cell has two values in all its points: {', '.join(partial)}")
    notes += [f"cells left out: {lacking}"] if lacking else []
    return Figure(
        "importance", "Importance of hyperparameters", _in_words(known), _spec(rows, found), rows, tuple(notes), 4
    )


def _chosen(found: Searched, evaluator: str) -> ImportanceEvaluator:
    if evaluator == "fanova":
        return "fanova"
    if evaluator == "ped_anova":
        return "ped_anova"
    counts = Counter(point.cell for point in found.points if point.values)
    return affordable(list(counts.values()), len(found.search) * len(found.objectives))


def _lacking(each: list[CellImportances]) -> str:
    """Which cells have no importances, and why."""
    reasons: dict[str, list[str]] = {}
    for one in each:
        if one.reason:
            reasons.setdefault(one.reason, []).append(one.cell or "the search")
    texts = [f"{listed(dict.fromkeys(cells), 3)} ({reason})" for reason, cells in reasons.items()]
    more = len(texts) - _MOST_REASONS
    return "; ".join([*texts[:_MOST_REASONS], *([f"and {more} more reasons"] if more > 0 else [])])


def _rows(known: list[CellImportances]) -> pd.DataFrame:
    names = short_keys([one.cell for one in known])
    rows: pd.DataFrame = pd.DataFrame(
        [
            {
                "objective": one.objective, "cell": one.cell, "shown_as": names[one.cell] or "the search",
                "hyperparameter": path, "importance_percent": 100 * share, "points": one.points,
            }
            for one in known
            for path, share in one.shares.items()
        ]
    )  # fmt: skip
    return rows


def _in_words(known: list[CellImportances]) -> str:
    """The most important hyperparameter of every cell."""
    first = [one for one in known if one.objective == known[0].objective]
    tops = [(max(one.shares, key=lambda path: one.shares[path]), one) for one in first]
    each = [f"{one.cell or 'the search'}: {path} {100 * one.shares[path]:.0f} %" for path, one in tops]
    return (
        f"Importance of hyperparameters for {known[0].objective}, in percent of what the hyperparameters explain, in "
        f"cells with at least {FEWEST_POINTS} complete points. Most important: {'; '.join(each[:20])}."
    )


def _spec(rows: pd.DataFrame, found: Searched) -> dict[str, Any]:
    order = [path for path in found.search if path in set(rows["hyperparameter"])]
    objectives = list(dict.fromkeys(rows["objective"]))
    cells = int(rows["cell"].nunique())
    x = {
        "field": "hyperparameter", "type": "nominal", "sort": order, "title": None,
        "axis": {"labelAngle": 0 if len(order) <= 3 else -40, "ticks": False, "labelLimit": 130, "orient": "bottom"},
    }  # fmt: skip
    y = {
        "field": "shown_as", "type": "nominal", "sort": None, "title": None,
        "axis": {"ticks": False, "labelLimit": 150, "labelOverlap": "greedy"},
    }  # fmt: skip
    colour = {
        "field": "importance_percent", "type": "quantitative", "title": "importance [%]", "scale": {"domain": [0, 100]},
        "legend": {"orient": "bottom", "direction": "horizontal", "offset": 8, "tickCount": 5},
    }  # fmt: skip
    tooltip = [
        {"field": "cell", "title": "cell"},
        {"field": "hyperparameter", "title": "hyperparameter"},
        {"field": "importance_percent", "title": "importance %", "format": ".1f"},
        {"field": "points", "title": "complete points"},
    ]
    number = {"field": "importance_percent", "type": "quantitative", "format": ".0f"}
    ink = {"condition": {"test": "datum.importance_percent > 55", "value": "#111111"}, "value": "#ffffff"}
    layers: list[dict[str, Any]] = [{"mark": "rect", "encoding": {"color": colour}}]
    if cells <= 40:
        layers.append({"mark": "text", "encoding": {"text": number, "color": ink}})
    spec: dict[str, Any] = {
        "data": {"name": "rows"},
        "height": max(40, cells * (20 if cells <= 40 else 10)),
        "encoding": {"x": x, "y": y, "tooltip": tooltip},
        "layer": layers,
    }
    if len(objectives) > 1:
        spec |= {
            "params": [*SIZE_PARAMS, choice("objective_shown", "objective", objectives)],
            "transform": [only_chosen("objective", "objective_shown")],
            **chosen_title("objective_shown"),
        }
    return spec
