"""Plot docs/demo.png: ``python docs/demo.py STORAGE FILE.png``, after running the demo profiles of three spaces:

for space in bip_unstructured one_shot_magnitude imp_kseries; do
    python sweep.py --space $space --profile demo --storage STORAGE
done
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import sweeper
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.summary import summarise

CURVES = {
    "bip_unstructured": ("BiP, best of 4 by validation", {}),
    "one_shot_magnitude": ("one-shot magnitude, global", {"distribution": "global"}),
    "imp_kseries": ("iterative magnitude (IMP)", {}),
}


def curve(path: Path, where: dict[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of a sweep's summary to plot, by ascending density, and the rows of its dense networks."""
    space = SweepFolder(path).documents()[-1]["space"]
    rows = summarise(sweeper.load(path), objective="val_accuracy", direction="maximize", grid=list(space["grid"]))
    dense = rows[rows["kind"] == "dense"]
    rows = rows[rows["kind"] == "group"]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows.sort_values("density"), dense


def main(storage: str, to: str) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, (label, where) in CURVES.items():
        rows, dense = curve(Path(storage) / name, where)
        axes.errorbar(
            100 * rows["density"],
            100 * rows["test_accuracy_mean"],
            yerr=100 * rows["test_accuracy_std"],
            marker="o",
            capsize=3,
            label=f"{label} (n = {int(rows['n'].min())})",
        )
        if name == "bip_unstructured":
            axes.axhline(100 * dense["test_accuracy_mean"].iloc[0], color="grey", linestyle=":", label="dense")
    axes.set(xscale="log", xlabel="density: weights kept [%]", ylabel="test accuracy [%]", title="digits, tiny net")
    axes.xaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
    axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    axes.set_xticks([5, 10, 20, 50, 80])
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(to, dpi=120)


if __name__ == "__main__":
    main(*sys.argv[1:3])
