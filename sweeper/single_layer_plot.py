"""Plot a single-layer analysis: ``python -m sweeper.single_layer_plot results/NAME --to FILE.png``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pandas as pd

from sweeper.report.figures import single_layers
from sweeper.report.gathered import gathered_of
from sweeper.report.plot_command import Drawn, plot, plot_parser
from sweeper.results.frames import SweepTables
from sweeper.results.regrowth import layer_gains
from sweeper.results.tables import load
from trials.system.streams import as_command

_CORRELATIONS = ("pearson", "pearson_p", "spearman", "spearman_p", "pairs")
"""Correlations of SSIM with a gain, in the rows of the stage regrow, each with the suffix _gain or _immediate_gain."""


def correlation_texts(sweep: SweepTables) -> dict[str, list[str]]:
    """Text columns with each trial's correlations of SSIM with the gain; empty where none is defined."""
    rows = sweep.epochs[sweep.epochs["stage"] == "regrow"].drop_duplicates("trial", keep="last")
    rows = rows[rows["trial"].isin(set(layer_gains(sweep)["trial"]))]
    found: dict[str, list[str]] = {"trial": [], "gain": [], **{name: [] for name in _CORRELATIONS}}
    for _, row in rows.iterrows():
        for kind, when in (("gain", "after finetuning"), ("immediate_gain", "before finetuning")):
            if f"pearson_{kind}" not in row or pd.isna(row[f"pearson_{kind}"]):
                continue
            found["trial"].append(str(row["trial"]))
            found["gain"].append(when)
            for name in _CORRELATIONS:
                found[name].append(f"{float(row[f'{name}_{kind}']):.3g}")
    return found if found["trial"] else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Plot a sweep's single-layer trials, print their correlations; exit code 0 done, 2 wrong input."""
    parser = plot_parser("single_layer_plot", "Draw what regrowth in single layers gained, over SSIM and by layer.")
    return plot(_drawn, parser.parse_args(arguments))


def _drawn(options: argparse.Namespace) -> Drawn:
    gathered = gathered_of(load(options.sweep))
    figure = single_layers.draw(gathered)
    correlations = correlation_texts(gathered.sweep)
    said = (
        "p-values are not corrected for the number of layers or trials"
        if correlations
        else "no correlation: fewer than three layers with an SSIM, or constant values"
    )
    return Drawn(figure, correlations, ("trial", "gain"), [said])


if __name__ == "__main__":
    sys.exit(as_command(main))
