"""Plot regrowth: ``python -m sweeper.regrowth_plot results/NAME --to FILE.png``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sweeper.report.figures import regrowth
from sweeper.report.gathered import gathered_of
from sweeper.report.plot_command import Drawn, plot, plot_parser
from sweeper.results.frames import SweepTables
from sweeper.results.regrowth import episode_costs
from sweeper.results.tables import load
from trials.system.streams import as_command


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
    gathered = gathered_of(load(options.sweep))
    return Drawn(regrowth.draw_stages(gathered), cost_texts(gathered.sweep), ("trial",))


if __name__ == "__main__":
    sys.exit(as_command(main))
