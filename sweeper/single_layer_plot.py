"""Plot a single-layer analysis: ``python -m sweeper.single_layer_plot results/NAME --to FILE.png``.

Needs matplotlib, which is not installed with the sweeper.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd

from sweeper.report.plot_command import Drawn, plot, plot_parser
from sweeper.results.frames import SweepTables
from sweeper.results.regrowth import layer_gains
from sweeper.results.tables import load
from trials.errors import UserError

_CORRELATIONS = ("pearson", "pearson_p", "spearman", "spearman_p", "pairs")
"""Correlations of SSIM with a gain, in the rows of the stage regrow, each with the suffix _gain or _immediate_gain."""

_BLUE, _GREY = "#0072B2", "0.7"


def draw_single_layers(gains: pd.DataFrame) -> Any:
    """Return a matplotlib figure of the rows of :func:`sweeper.results.regrowth.layer_gains`.

    Above: gain after and before finetuning over the SSIM of the layer's dense and sparse features, a point per trial
    and layer. Below, by layer: the gain after finetuning, and how many of the pruned weights were regrown; bars are
    means over the trials, points the trials.
    """
    from matplotlib.figure import Figure

    layers = list(dict.fromkeys(gains["layer"]))
    figure = Figure(figsize=(10, 5 + 0.22 * len(layers)), layout="constrained")
    ((final, immediate), (by_layer, regrown)) = figure.subplots(2, 2)
    for axis, column, when in ((final, "gain", "after"), (immediate, "immediate_gain", "before")):
        axis.plot(gains["ssim"], 100 * gains[column], color=_BLUE, marker="o", markersize=4, linestyle="")
        if unknown := int(gains["ssim"].isna().sum()):
            axis.set_title(f"{unknown} of {len(gains)} points have no SSIM", fontsize="small")
        axis.axhline(0, color="0.4", linestyle=":", linewidth=1)
        axis.set(xlabel="SSIM of dense and sparse features", ylabel=f"gain {when} finetuning [points]")
    share = 100 * gains["count"].astype(float) / gains["capacity"].astype(float)
    for axis, values, label in (
        (by_layer, 100 * gains["gain"], "gain after finetuning [points]"),
        (regrown, share, "share of the pruned weights regrown [%]"),
    ):
        means = values.groupby(gains["layer"], sort=False).mean().reindex(layers)
        axis.barh(layers, means.tolist(), color=_GREY)
        axis.plot(values.tolist(), gains["layer"].tolist(), color=_BLUE, marker="o", markersize=3, linestyle="")
        axis.invert_yaxis()
        axis.tick_params(axis="y", labelsize="small")
        axis.set(xlabel=label)
    for axis in (final, immediate, by_layer, regrown):
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


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
    sweep = load(options.sweep)
    gains = layer_gains(sweep)
    if gains.empty:
        raise UserError(f"{options.sweep} has no trial of single_layer that has tried a layer: give a sweep of such")
    correlations = correlation_texts(sweep)
    said = (
        "p-values are not corrected for the number of layers or trials"
        if correlations
        else "no correlation: fewer than three layers with an SSIM, or constant values"
    )
    return Drawn(draw_single_layers(gains), correlations, ("trial", "gain"), [said])


if __name__ == "__main__":
    sys.exit(main())
