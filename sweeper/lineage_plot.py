"""Plot the lineage of a population: ``python -m sweeper.lineage_plot results/NAME --to FILE.png``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sweeper.report.figures import lineage
from sweeper.report.gathered import gathered_of
from sweeper.report.plot_command import Drawn, plot, plot_parser
from sweeper.results.tables import load
from trials.errors import UserError
from trials.system.streams import as_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Plot a sweep's population and return the exit code: 0 done, 2 wrong input."""
    parser = plot_parser("lineage_plot", "Draw the lineage of a population.")
    parser.add_argument("--cell", help="its key, e.g. density=0.2,seed=0; default: the first")
    return plot(_drawn, parser.parse_args(arguments))


def _drawn(options: argparse.Namespace) -> Drawn:
    gathered = gathered_of(load(options.sweep))
    if not gathered.has_space:
        raise UserError(f"{options.sweep} has no sweep.yaml, but a population belongs to a space: give storage/name")
    return Drawn(lineage.draw(gathered, options.cell))


if __name__ == "__main__":
    sys.exit(as_command(main))
