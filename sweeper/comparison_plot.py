"""Plot a comparison of methods: ``python -m sweeper.comparison_plot results/NAME --to FILE.png``.

Needs matplotlib, which is not installed with the sweeper.
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import pandas as pd

from sweeper.report.plot_command import Drawn, plot, plot_parser
from sweeper.results.comparison import dense_accuracy, points_of, protocol, trials_behind, without_figure
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.summary import ACCURACIES
from sweeper.results.tables import load
from sweeper.results.warned import warnings_line

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow, which fades on white."""

MARKERS = "osD^vPX*<>ph"
"""Cycled together with the colours, these give 84 distinct styles, since 7 and 12 have no common factor."""


def draw_comparison(points: pd.DataFrame, accuracy: str, dense: float | None = None, said: str = "") -> Any:
    """Return a matplotlib figure of the points of :func:`sweeper.results.comparison.points_of`.

    Left: accuracy over density, one panel per series, with a band of one standard deviation over seeds to either side;
    the other series are grey. Right: accuracy over FLOPs, all points, with a line through the Pareto front. ``dense``,
    the accuracy of the dense network, is a dotted line. Points whose trials have warnings are hollow. Below: ``said``.
    """
    from matplotlib.figure import Figure

    series = [(str(name), part) for name, part in points.groupby("series", sort=False)]
    rows = math.ceil(len(series) / (columns := math.ceil(math.sqrt(len(series)))))
    figure = Figure(figsize=(2.1 * columns + 5.5, max(1.7 * rows + 0.5, 4)), layout="constrained")
    ((left, right),) = figure.subfigures(1, 2, squeeze=False, width_ratios=[2.1 * columns, 5.5])
    panels = left.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    front = right.subplots()
    for (name, part), panel, colour, marker in zip(series, panels, cycle(COLOURS), cycle(MARKERS), strict=False):
        for _, other in series:
            panel.plot(100 * other["density"], 100 * other["accuracy"], color="0.8", linewidth=0.7, zorder=1)
        x, y, band = 100 * part["density"], 100 * part["accuracy"], 100 * part["accuracy_std"].fillna(0)
        panel.fill_between(x, y - band, y + band, color=colour, alpha=0.25, linewidth=0)
        panel.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=1.5)
        panel.set_title(name, fontsize="medium")
        front.plot(part["flops"] / 1e6, y, color=colour, marker=marker, markersize=6, linestyle="", label=name)
        warned = part[part["warnings"] != ""]
        hollow = {"color": colour, "marker": marker, "markerfacecolor": "white", "linestyle": ""}
        panel.plot(100 * warned["density"], 100 * warned["accuracy"], markersize=5, **hollow)
        front.plot(warned["flops"] / 1e6, 100 * warned["accuracy"], markersize=6, **hollow)
    label = f"{accuracy.replace('_', ' ')} [%]"
    best = points[points["front"]].sort_values("flops")
    front.plot(best["flops"] / 1e6, 100 * best["accuracy"], color="0.75", linewidth=3, zorder=1, label="Pareto front")
    if (points["warnings"] != "").any():
        front.plot([], [], color="0.4", marker="o", markerfacecolor="white", linestyle="", label="with warnings")
    _hide_unused(panels, len(series), columns)
    panels[0].set_ylim(*_limits(points["accuracy"], dense))  # shared by all panels
    for axis in (front, *panels):
        if dense is not None:
            axis.axhline(100 * dense, color="0.4", linestyle=":", linewidth=1, zorder=0, label="dense")
        _style(axis)
    front.legend(loc="lower right", frameon=False, fontsize="small")
    front.set(xlabel="FLOPs per image [millions]", ylabel=label)
    left.supxlabel("density: weights kept, measured [%]", fontsize="medium")
    left.supylabel(label, fontsize="medium")
    figure.supxlabel("\n".join(textwrap.wrap(said, int(14 * figure.get_figwidth()))), fontsize="small", color="0.3")
    return figure


def _hide_unused(panels: Sequence[Any], used: int, columns: int) -> None:
    for panel in panels[used:]:
        panel.set_visible(False)
    for panel in panels[max(used - columns, 0) : used]:
        panel.tick_params(labelbottom=True)  # also of those with hidden ones below


def _limits(accuracies: pd.Series[Any], dense: float | None) -> tuple[float, float]:
    """Limits of the y axis, in percent: all points fit; bands are cut off beyond, so that one does not flatten all."""
    shown = [100 * value for value in (*accuracies, dense) if value is not None and math.isfinite(value)] or [
        0.0,
        100.0,
    ]
    margin = max(0.1 * (max(shown) - min(shown)), 1.0)
    return min(shown) - margin, max(shown) + margin


def _style(axis: Any) -> None:
    """Set a logarithmic x axis with a few round tick labels, and hide the frame's top and right sides."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)


def texts(points: pd.DataFrame) -> dict[str, list[str]]:
    """The points as text columns of a table."""
    rows = rows_of(points, set(points.columns))
    return {
        "series": [row["series"] for row in rows],
        "asked": [row["asked"] for row in rows],
        "density %": [_percent(row["density"]) for row in rows],
        "accuracy %": [f"{_percent(row['accuracy'])} ± {_percent(row['accuracy_std'])}" for row in rows],
        "MFLOPs": [f"{row['flops'] / 1e6:.4g}" for row in rows],
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
    parser = plot_parser("comparison_plot", "Draw accuracy over density and over FLOPs, by method.")
    parser.add_argument("--by", action="append", default=[], metavar="PATH",
                        help="a grid path whose values make a line, may be given again; default: method")  # fmt: skip
    parser.add_argument("--accuracy", choices=ACCURACIES, default="test_accuracy", help="default: %(default)s")
    return plot(_drawn, parser.parse_args(arguments))


def _drawn(options: argparse.Namespace) -> Drawn:
    sweep = load(options.sweep)
    points = points_of(sweep, options.by, options.accuracy)
    lines = [protocol(sweep, points), *filter(None, [without_figure(sweep)])]
    figure = draw_comparison(points, options.accuracy, dense_accuracy(sweep, options.accuracy), "; ".join(lines))
    left = ("series", "asked", "report", "confirmed", "best", "warnings")
    return Drawn(figure, texts(points), left, [*lines, *filter(None, [warnings_line(sweep, trials_behind(sweep))])])


if __name__ == "__main__":
    sys.exit(main())
