"""Plot a comparison of methods: ``python -m sweeper.comparison_plot results/NAME --to FILE.pdf``.

It draws the figure ``accuracy_density`` of the report, with the extra ``plots``, and prints its points.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pandas as pd

from sweeper.report.elements.series import series_paths
from sweeper.report.figures.accuracy_density import accuracy_density
from sweeper.report.plot_command import Drawn, plot, plot_parser
from sweeper.results.comparison import points_of, protocol, trials_behind, without_figure
from sweeper.results.report import figures_of
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.stored_space import WITHOUT_SPACE, stored_space
from sweeper.results.summary import ACCURACIES
from sweeper.results.tables import load
from sweeper.results.warned import warnings_line
from trials.system.streams import as_command


def texts(points: pd.DataFrame) -> dict[str, list[str]]:
    """The points as text columns of a table."""
    rows = rows_of(points, set(points.columns))
    return {
        "series": [row["series"] for row in rows],
        "asked": [row["asked"] for row in rows],
        "density %": [_percent(row["density"]) for row in rows],
        "accuracy %": [f"{_percent(row['accuracy'])} ± {_percent(row['accuracy_std'])}" for row in rows],
        "MFLOPs": ["–" if row["flops"] is None else f"{row['flops'] / 1e6:.4g}" for row in rows],
        "cost": ["–" if row["cost"] is None else f"{row['cost']:.4g}" for row in rows],
        "report": [row["report"] or "–" for row in rows],
        "n": [str(row["n"]) for row in rows],
        **({"confirmed": [row["confirmed"] for row in rows]} if any(row["confirmed"] for row in rows) else {}),
        **({"best": [row["best"] for row in rows]} if any(row["best"] for row in rows) else {}),
        "front": ["yes" if row["front"] else "" for row in rows],
        **({"warnings": [row["warnings"] for row in rows]} if any(row["warnings"] for row in rows) else {}),
    }


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Plot a sweep's methods, print the points, and return the exit code: 0 done, 2 wrong input."""
    parser = plot_parser("comparison_plot", "Draw accuracy over density by method, and print it with FLOPs and cost.")
    parser.add_argument("--by", action="append", default=[], metavar="PATH",
                        help="a grid path whose values make a line, may be given again; default: the method and what "
                        "else differs but for densities")  # fmt: skip
    parser.add_argument("--accuracy", choices=ACCURACIES, default="test_accuracy", help="default: %(default)s")
    return plot(_drawn, parser.parse_args(arguments))


def _drawn(options: argparse.Namespace) -> Drawn:
    sweep = load(options.sweep)
    space = stored_space(sweep) or WITHOUT_SPACE
    by = options.by or series_paths(sweep, space, figures_of(sweep, space))
    figure, points = accuracy_density(sweep, options.accuracy, by), points_of(sweep, by or None, options.accuracy)
    lines = [protocol(sweep, points), *filter(None, [without_figure(sweep)])]
    left = ("series", "asked", "report", "confirmed", "best", "warnings")
    return Drawn(figure, texts(points), left, [*lines, *filter(None, [warnings_line(sweep, trials_behind(sweep))])])


if __name__ == "__main__":
    sys.exit(as_command(main))
