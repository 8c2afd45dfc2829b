"""Analyses of regrowth from a sweep's tables: allocations used, costs of episodes, and densities by layer."""

from __future__ import annotations

import pandas as pd

from sweeper.results.frames import SweepTables

COSTS = ["trial", "step", "episodes", "seconds_mean", "seconds_std", "best"]
GAINS = ["trial", "layer", "ssim", "capacity", "count", "gain", "immediate_gain"]
APPLIED = ["trial", "step", "layer", "capacity", "count", "share", "regrown"]


def applied_allocations(sweep: SweepTables, trials: int | None = None) -> pd.DataFrame:
    """Return the allocation that each regrowth used: that of its best episode, or of its rule.

    ``trials``: only the first so many trials; None for all.

    Returns:
        A row per trial, step and layer, in the order of the decisions: ``capacity``, ``count``; ``share`` of the budget
        spent; ``regrown``: share of the layer's pruned weights that were regrown. Trials of ``single_layer``, which
        only try layers one by one, have no rows.
    """
    found = sweep.allocations.dropna(subset=["step", "episode", "capacity", "count"])  # a method's own may lack them
    nothing: pd.DataFrame = pd.DataFrame(columns=APPLIED)
    if found.empty:
        return nothing
    if trials is not None:
        found = found[found["trial"].isin(found["trial"].unique()[:trials])]
    method = dict(zip(sweep.trials["trial"], sweep.trials["method"], strict=True))
    parts = []
    for _, episodes in found.groupby(["trial", "step"], sort=False):
        if method[episodes["trial"].iloc[0]] == "single_layer":
            continue
        best = episodes.groupby("episode", sort=True)["reward"].first()
        chosen = best.idxmax() if best.notna().any() else best.index[0]  # ties go to the first
        rows = episodes[episodes["episode"] == chosen]
        count, capacity = rows["count"].astype(float), rows["capacity"].astype(float)
        parts.append(rows.assign(share=count / max(count.sum(), 1), regrown=count / capacity.clip(lower=1)))
    if not parts:
        return nothing
    applied: pd.DataFrame = pd.concat(parts)[APPLIED].reset_index(drop=True)
    return applied


def allocation_texts(sweep: SweepTables, trials: int = 4) -> dict[str, list[str]]:
    """Text columns that show the allocations of the first ``trials`` trials by layer; empty if nothing was regrown."""
    table = applied_allocations(sweep, trials)
    if table.empty:
        return {}
    first = ~table.duplicated(["trial", "step"])
    return {
        "regrowth of": [str(trial) if shown else "" for trial, shown in zip(table["trial"], first, strict=True)],
        "round": [str(step) if shown else "" for step, shown in zip(table["step"], first, strict=True)],
        "layer": [str(layer) for layer in table["layer"]],
        "pruned": [f"{capacity:,}" for capacity in table["capacity"]],
        "regrown": [f"{count:,}" for count in table["count"]],
        "share %": [f"{100 * share:.1f}" for share in table["share"]],
    }


def episode_costs(sweep: SweepTables) -> pd.DataFrame:
    """Per trial and step: number of ``episodes``, ``seconds_mean`` and ``seconds_std`` per episode, ``best`` reward."""
    if "seconds" not in sweep.allocations:  # no trial has tried episodes
        nothing: pd.DataFrame = pd.DataFrame(columns=COSTS)
        return nothing
    episodes = sweep.allocations.drop_duplicates(["trial", "step", "episode"])
    grouped = episodes.groupby(["trial", "step"], sort=False)
    costs: pd.DataFrame = grouped.agg(
        episodes=("episode", "count"),
        seconds_mean=("seconds", "mean"),
        seconds_std=("seconds", "std"),
        best=("reward", "max"),
    ).reset_index()
    return costs


def layer_gains(sweep: SweepTables) -> pd.DataFrame:
    """Return what regrowth in single layers gained: a row per trial of ``single_layer`` and layer that was regrown.

    ``gain`` is the validation accuracy after finetuning above that of the trial's control, which is finetuned without
    regrowth; ``immediate_gain`` the same before finetuning. Trials whose control has not run yet have no rows.
    """
    nothing: pd.DataFrame = pd.DataFrame(columns=GAINS)
    found = sweep.allocations
    if found.empty:
        return nothing
    single = set(sweep.trials.loc[sweep.trials["method"] == "single_layer", "trial"])
    found = found[found["trial"].isin(single)]
    control = found[found["episode"] == 0].drop_duplicates("trial").set_index("trial")
    tried = found[(found["episode"] > 0) & (found["count"] > 0) & found["trial"].isin(control.index)]
    if tried.empty:
        return nothing
    table: pd.DataFrame = tried.assign(
        gain=tried["accuracy"] - tried["trial"].map(control["accuracy"]),
        immediate_gain=tried["immediate"] - tried["trial"].map(control["immediate"]),
    )[GAINS].reset_index(drop=True)
    return table


def table_retention(sweep: SweepTables) -> pd.DataFrame:
    """Values of a heat map: density at the end of each stage, by layer and by trial, stage and level.

    Rows are layers in the network's order, then their mean; columns are (trial, stage, level).
    """
    table = sweep.layers.pivot_table(
        index="layer", columns=["trial", "stage", "level"], values="density", aggfunc="last", sort=False
    ).reindex(list(dict.fromkeys(sweep.layers["layer"])))
    mean = table.mean().to_frame("mean over layers").T
    whole: pd.DataFrame = pd.concat([table, mean])
    return whole


def table_sparsity_accuracy(sweep: SweepTables) -> pd.DataFrame:
    """Sparsity and accuracies at the end of every stage of every trial, shared trials once; by ascending sparsity."""
    epochs = sweep.epochs[sweep.epochs["test_accuracy"].notna()]
    epochs = epochs.assign(owner=epochs["stage_id"].fillna(epochs["trial"]))
    ends = epochs.drop_duplicates(["owner", "stage", "level"], keep="last")
    columns = ["owner", "stage", "level", "sparsity", "kept", "val_accuracy", "test_accuracy"]
    table: pd.DataFrame = ends[columns].sort_values(["sparsity", "owner"]).reset_index(drop=True)
    return table
