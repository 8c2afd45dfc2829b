"""Plot regrowth: ``python -m sweeper.regrowth_plot results/NAME --to FILE.png``.

Needs matplotlib, which is not installed with the sweeper.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from sweeper.report.plot_command import Drawn, plot, plot_parser
from sweeper.results.frames import SweepTables
from sweeper.results.regrowth import episode_costs, table_retention, table_sparsity_accuracy
from sweeper.results.tables import load
from trials.errors import UserError

_COLOURS = {"pretrain": "0.6", "prune": "#D55E00", "regrow": "#0072B2", "finetune": "#009E73"}
MOST_COLUMNS = 40
"""Most columns of the heat map whose names are readable; further ones are left out."""


def draw_regrowth(sweep: SweepTables) -> Any:
    """Return a matplotlib figure of a sweep: test accuracy over sparsity, and density by layer.

    Left: the end of every stage of every trial, by stage; shared trials once. Right: density of every layer (rows) at
    the end of every stage and level of the first trials (columns), and the mean over the layers.
    """
    from matplotlib.figure import Figure

    retention = table_retention(sweep).iloc[:, :MOST_COLUMNS]
    height = max(4.0, 1.5 + 0.22 * len(retention))
    figure = Figure(figsize=(7 + 0.25 * retention.shape[1], height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[5, 2 + 0.25 * retention.shape[1]])
    for stage, part in table_sparsity_accuracy(sweep).groupby("stage", sort=False):
        colour = _COLOURS.get(str(stage), "#CC79A7")
        x, y = 100 * part["sparsity"], 100 * part["test_accuracy"]
        left.plot(x, y, color=colour, marker="o", markersize=4, linestyle="", label=str(stage))
    left.set(xlabel="sparsity [%]", ylabel="test accuracy [%]")
    left.legend(frameon=False, fontsize="small")
    left.grid(alpha=0.2)
    left.spines[["top", "right"]].set_visible(False)
    shown = right.imshow(retention.to_numpy(float), aspect="auto", cmap="viridis", vmin=0, vmax=1)
    right.set_yticks(range(len(retention)), [str(layer) for layer in retention.index], fontsize="small")
    names = [f"{trial[-6:]} {stage} {level}" for trial, stage, level in retention.columns]
    right.set_xticks(range(len(names)), names, rotation=90, fontsize="x-small")
    figure.colorbar(shown, ax=right, label="density")
    return figure


def cost_texts(sweep: SweepTables) -> dict[str, list[str]]:
    """Text columns with the episodes of every trial and round: their number, seconds each, and the best reward."""
    costs = episode_costs(sweep)
    if costs.empty:
        return {}
    return {
        "trial": [str(trial) for trial in costs["trial"]],
        "round": [str(step) for step in costs["step"]],
        "episodes": [str(count) for count in costs["episodes"]],
        "s/episode": [f"{mean:.3g}" for mean in costs["seconds_mean"]],
        "best reward": [f"{best:.4f}" for best in costs["best"]],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Plot a sweep, print what its episodes cost, and return the exit code: 0 done, 2 wrong input."""
    parser = plot_parser("regrowth_plot", "Draw accuracy over sparsity, and densities by layer.")
    return plot(_drawn, parser.parse_args(arguments))


def _drawn(options: argparse.Namespace) -> Drawn:
    sweep = load(options.sweep)
    if sweep.layers.empty:
        raise UserError(f"{options.sweep} has no trial that has finished a stage: run it first")
    return Drawn(draw_regrowth(sweep), cost_texts(sweep), ("trial",))


if __name__ == "__main__":
    sys.exit(main())
