"""Plot the lineage of a population: ``python -m sweeper.lineage_plot results/NAME --to FILE.png``.

Needs matplotlib, which is not installed with the sweeper.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Container, Sequence
from typing import Any

import pandas as pd

from sweeper.columns import COLUMNS
from sweeper.report.plot_command import Drawn, plot, plot_parser
from sweeper.results.frames import SweepTables
from sweeper.results.lineage import history
from sweeper.results.stored_space import stored_space
from sweeper.results.tables import load
from sweeper.results.warned import codes_by_trial
from sweeper.space.options.objectives import objective_of
from trials.errors import UserError


def draw_lineage(sweep: SweepTables, cell: str, objective: str, direction: str = "maximize") -> Any:
    """Return a matplotlib figure of one cell's population: objective and hyperparameters over epochs, by member.

    A dotted line leads from a segment to a member that continues a copy of it. The ancestry of the best member of the
    last generation is thick. The dot of a segment whose trial has warnings is hollow.

    Raises:
        UserError: the sweep has no population in that cell, or no trial has reported the objective.
    """
    from matplotlib.figure import Figure

    mine = sweep.lineage[sweep.lineage["cell"] == cell]
    if mine.empty:
        cells = ", ".join(map(repr, sorted(set(sweep.lineage["cell"])))) or "none"
        raise UserError(f"cell is {cell!r}, but the cells with a population are: {cells}")
    if objective not in sweep.trials:
        raise UserError(
            f"objective is {objective!r}, but no trial has reported it: wait for one, or restore sweep.yaml"
        )
    warned = codes_by_trial(sweep)
    mine = mine.merge(sweep.trials[["trial", objective]], on="trial").sort_values(["generation", "member"])
    paths = [name for name in sweep.lineage.columns if name not in COLUMNS["lineage"] and mine[name].notna().any()]
    figure = Figure(figsize=(7, 2 + 1.6 * len(paths)), layout="constrained")
    axes = figure.subplots(1 + len(paths), 1, sharex=True, squeeze=False)[:, 0]
    best = _best(mine, objective, direction)
    thick = set(zip(best["generation"].tolist(), best["member"].tolist(), strict=True))
    for axis, name in zip(axes, [objective, *paths], strict=True):
        _draw_lines(axis, mine, name, thick, warned, steps=name != objective)
        axis.set_ylabel(name)
    axes[-1].set_xlabel("epoch")
    axes[0].set_title(cell or sweep.path.name)
    if warned.keys() & set(mine["trial"]):
        axes[0].plot([], [], "o", color="0.4", markerfacecolor="white", label="with warnings")
        axes[0].legend(frameon=False, fontsize="small")
    return figure


def _best(mine: pd.DataFrame, objective: str, direction: str) -> pd.DataFrame:
    """The ancestry of the best member of the last generation that has objective values."""
    known = mine[mine[objective].notna()]
    last: pd.DataFrame = known[known["generation"] == known["generation"].max()].sort_values(objective)
    if last.empty:
        return last
    best = last.iloc[-1 if objective_of(objective, direction).sign > 0 else 0]
    return history(mine[mine["generation"] <= best["generation"]], best["cell"], int(best["member"]))


def _draw_lines(
    axis: Any, mine: pd.DataFrame, name: str, thick: set[tuple[int, int]], warned: Container[str], steps: bool
) -> None:
    """Draw a dot (with ``steps``: a bar) per segment, and a line to it from its parent's segment."""
    rows = {(row["generation"], row["member"]): row for row in mine.to_dict("records")}
    for (generation, member), row in rows.items():
        copied = generation and row["parent"] != member
        style = {"color": f"C{member % 10}", "linewidth": 2.5 if (generation, member) in thick else 0.8}
        style |= {"linestyle": ":" if copied else "-", "zorder": 3 if (generation, member) in thick else 2}
        if steps:
            axis.plot([row["from_epoch"], row["until_epoch"]], [row[name]] * 2, **{**style, "linestyle": "-"})
        else:
            shape: dict[str, Any] = {"marker": "."}
            if row["trial"] in warned:
                shape = {"marker": "o", "markersize": 4, "markerfacecolor": "white", "zorder": 4}
            axis.plot(row["until_epoch"], row[name], color=style["color"], linestyle="", **shape)
        parent = rows.get((generation - 1, row["parent"]))
        if parent is not None:
            end = row["from_epoch"] if steps else row["until_epoch"]
            axis.plot([parent["until_epoch"], end], [parent[name], row[name]], **style)
    values = [row[name] for row in rows.values() if isinstance(row[name], float)]
    if steps and values and min(values) > 0 and max(values) > 10 * min(values):
        axis.set_yscale("log")


def main(arguments: Sequence[str] | None = None) -> int:
    """Plot a sweep's population and return the exit code: 0 done, 2 wrong input."""
    parser = plot_parser("lineage_plot", "Draw the lineage of a population.")
    parser.add_argument("--cell", help="its key, e.g. density=0.2,seed=0; default: the first")
    return plot(_drawn, parser.parse_args(arguments))


def _drawn(options: argparse.Namespace) -> Drawn:
    sweep = load(options.sweep)
    space = stored_space(sweep)
    if space is None:
        raise UserError(f"{options.sweep} has no sweep.yaml, but a population belongs to a space: give storage/name")
    cell = options.cell if options.cell is not None else next(iter(sweep.lineage["cell"]), "")
    first = space.objectives[0]  # a population has one: pbt refuses several
    return Drawn(draw_lineage(sweep, cell, first.column, first.direction), dpi=150)


if __name__ == "__main__":
    sys.exit(main())
