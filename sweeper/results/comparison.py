"""Compare methods: accuracy of the best trials of a sweep's cells, by series and density, and their Pareto front.

The cells of a series share some grid values, such as the method; its points are groups of cells that differ only in
their seed. Density is measured over the same weights for all methods, those of every convolution and linear layer. The
requested density and the column ``density`` may cover fewer weights, and a method may miss the requested density.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sweeper.results.cell_trials import CellTrials, searched_values
from sweeper.results.frames import SweepTables
from sweeper.results.pareto import undominated
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.stored_space import StoredSpace, stored_space
from sweeper.results.summary import ACCURACIES, cells_of, column_of, levels_of, mean, rules_of, std, summarise
from sweeper.results.warned import codes_of
from trials.errors import UserError, unknown_name
from trials.storage.rows import Row

_CELLS_SHOWN = 8


def points_of(
    sweep: SweepTables, by: Sequence[str] | None = (), accuracy: str = "test_accuracy", *, levels: bool = False,
    measures: Sequence[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """Return a row per group of cells that share every grid value but ``seed``; by series, from dense to sparse.

    Args:
        sweep: the tables; a cell's best trial is chosen by the sweep's own objective and constraints.
        by: grid paths whose values define a series, beside the data set; default: the method, else all but density.
            None: one series for each data set.
        accuracy: ``test_accuracy`` or ``val_accuracy``.
        levels: add a row for each earlier level of trials that have levels, such as those of ``imp``.
        measures: further columns of ``trials``, of which the points get means over seeds; NaN where a seed lacks one.

    Returns:
        Columns ``series``; ``dataset``, None where the grid has none; ``asked``: the other grid values; ``density``,
        ``accuracy``, ``flops``, ``cost`` and ``cost_flops``: means over seeds (NaN where unknown: unreadable layers,
        older versions); ``accuracy_std`` (ddof 1); ``n``: number of seeds with an accuracy; ``report``: the epoch that
        counts; ``confirmed``: how many confirmations are complete, which are the trials of these figures then (empty
        if none is asked for); ``best``: what the best trials have in the searched fields; ``front``: whether no other
        point of the data set is at least as good in both accuracy and FLOPs and better in one; ``warnings``: codes of
        all these trials, as one text. With ``levels`` also ``level``, missing for the last one, and for earlier ones
        ``front`` is false.

    Raises:
        UserError: ``by`` is not in the grid, ``accuracy`` is unknown, no trial is complete, or space or layers
            cannot be read.
    """
    if accuracy not in ACCURACIES:
        raise UserError(unknown_name("accuracy", accuracy, ACCURACIES))
    space = _space_of(sweep)
    groups = [path for path in space.paths if path != "seed"]
    paths = _series_by(by, groups)
    found = _best_by_group(sweep, space, groups, (accuracy, *measures))
    if not found:
        raise UserError(_nothing_to_compare(sweep, space))
    asked = [dict(zip(groups, key, strict=True)) for key in found]
    pairs = list(zip(asked, found.values(), strict=True))
    points = pd.DataFrame([{**_point(*both, paths, accuracy), **_means(both[1], measures)} for both in pairs])
    _require_densities(sweep, points)
    _mark_front(points, [values.get("dataset") for values in asked])
    if levels:
        points = _with_levels(sweep, points, pairs, paths, accuracy, measures)
    ordered: pd.DataFrame = points.sort_values(["series", "density"], ascending=[True, False], ignore_index=True)
    return ordered


def _require_densities(sweep: SweepTables, points: pd.DataFrame) -> None:
    if points["density"].isna().all():
        raise UserError(
            f"{sweep.path.name} has no readable rows of layers in its best trials, but a comparison needs their "
            "densities: run the sweep's command again, which repairs them"
        )


def _series_by(by: Sequence[str] | None, groups: Sequence[str]) -> list[str]:
    """The grid paths that define a series, the data set among them."""
    for path in by or ():
        if path not in groups:
            raise UserError(unknown_name("by", path, groups))
    default = ["method"] if "method" in groups else [path for path in groups if path != "density"]
    paths = [] if by is None else list(by) or default
    return paths + [path for path in ("dataset",) if path in groups and path not in paths]


def _nothing_to_compare(sweep: SweepTables, space: StoredSpace) -> str:
    complete = int((sweep.trials["status"] == "complete").sum())
    if not complete:
        return f"{sweep.path.name} has no complete trial yet: there is nothing to compare"
    if space.confirm:
        return f"{sweep.path.name} has {complete} complete trials, none of which confirms a best one: run it to its end"
    return f"{sweep.path.name} has {complete} complete trials, none of them within its constraints: loosen them"


def _mark_front(points: pd.DataFrame, datasets: Sequence[str | None]) -> None:
    """Add the column ``front``; ``datasets`` are the points' data sets, which are not compared with each other."""
    points["front"] = False
    for name in dict.fromkeys(datasets):
        mine = [other == name for other in datasets]
        costs = points.loc[mine, ["accuracy", "flops"]].to_numpy(dtype=float) * [-1.0, 1.0]
        points.loc[mine, "front"] = undominated(costs)


def _means(best: Sequence[Row], measures: Sequence[str]) -> Row:
    """Means of columns over the trials of a point; NaN where one of them lacks it."""
    values = {name: [row.get(name) for row in best] for name in measures}
    return {name: math.nan if None in found else mean(found) for name, found in values.items()}


def _cells(sweep: SweepTables, space: StoredSpace, figures: Sequence[str]) -> list[CellTrials]:
    """The cells that have a trial, by the sweep's own objective and constraints."""
    first, groups = space.objectives[0], [path for path in space.paths if path != "seed"]
    figures = list(dict.fromkeys([first.column, *figures, "flops", "cost_flops"]))
    asked = (first, groups, space.search, space.constraints, figures, space.confirm, space.replicates)
    return list(cells_of(sweep, *asked))


def _best_by_group(
    sweep: SweepTables, space: StoredSpace, groups: Sequence[str], figures: Sequence[str]
) -> dict[tuple[Any, ...], list[Row]]:
    """The best trials of the cells that share every grid value but the seed, with the density of all their weights."""
    densities = density_of_all(sweep)
    found: dict[tuple[Any, ...], list[Row]] = {}
    for cell in _cells(sweep, space, figures):
        confirmed = cell.confirmed.text if cell.confirmed else ""
        for row in cell.figures:
            codes = [code for trial in (row, *cell.confirmed_trials) for code in trial.get("warnings") or ()]
            density = densities.get(row["trial"], math.nan)
            best = searched_values([row], space.searched_in(dict(zip(groups, cell.group, strict=True))))
            marked = {**row, "density": density, "warnings": codes, "confirmed": confirmed, "best": best}
            found.setdefault(cell.group, []).append(marked)
    return found


def trials_behind(sweep: SweepTables) -> set[str]:
    """The trials whose warnings stand in :func:`points_of`: those of the figures, and the samples that they confirm."""
    return {row["trial"] for cell in _cells(sweep, _space_of(sweep), ()) for row in cell.marked}


def density_of_all(sweep: SweepTables) -> dict[str, float]:
    """By trial, the share of all weights of convolutions and linear layers that are left after its last stage."""
    return _shares(sweep.layers, ["trial"])


def _density_by_level(sweep: SweepTables) -> dict[tuple[str, int], float]:
    """By trial and level, the share of all weights that are left after the level's last stage."""
    return _shares(sweep.layers[sweep.layers["stage"] != "pretrain"], ["trial", "level"])


def _shares(layers: pd.DataFrame, by: list[str]) -> dict[Any, float]:
    last = layers.drop_duplicates([*by, "layer"], keep="last").groupby(by)[["kept", "total"]].sum()
    return {key: float(share) for key, share in (last["kept"] / last["total"]).items()}


def dense_accuracy(sweep: SweepTables, accuracy: str = "test_accuracy") -> float | None:
    """Mean accuracy of the dense networks that the trials of :func:`points_of` start from.

    None if there are none or several sets of them.
    """
    found = dense_accuracies(sweep, accuracy)
    return found[0][1] if len(found) == 1 else None


def dense_accuracies(sweep: SweepTables, accuracy: str = "test_accuracy") -> list[tuple[str, float]]:
    """Mean accuracy of each set of dense networks that the trials of :func:`points_of` start from.

    Its name is made of the grid values that tell it from the others, such as the data set; that of the only one is
    empty.
    """
    space = _space_of(sweep)
    first = space.objectives[0]
    rows = summarise(
        sweep, objective=first.column, direction=first.direction, grid=space.paths, constraints=space.constraints,
        confirm=space.confirm, replicates=space.replicates,
    )  # fmt: skip
    columns = [column_of(path) for path in space.paths if path not in ("seed", "density")]
    dense = rows_of(rows[rows["kind"] == "dense"], {*columns, f"{accuracy}_mean"})
    differing = [column for column in columns if len({str(row.get(column)) for row in dense}) > 1]
    names = [", ".join(str(row[one]) for one in differing if row.get(one) is not None) for row in dense]
    return [(name, float(row[f"{accuracy}_mean"])) for name, row in zip(names, dense, strict=True)
            if row[f"{accuracy}_mean"] is not None]  # fmt: skip


def protocol(sweep: SweepTables, points: pd.DataFrame) -> str:
    """One line on how the figures of :func:`points_of` came about: which epoch, what cost, what was searched.

    Of the kind ``report: last; cost: 20 to 20.96 gradient evaluations per training image (2.152e+10 to 2.256e+10
    FLOPs); searched on val_accuracy, 4 samples per cell: finetune.lr; figures: mean ± standard deviation over
    confirmations with the seeds 1, 2, 3, n = 3``.
    """
    space, first = _space_of(sweep), _space_of(sweep).objectives[0]
    counts = sorted(set(points["n"]))
    flops = f" ({spent} FLOPs)" if (spent := _from_to(points["cost_flops"])) else ""
    rules = ", ".join(dict.fromkeys(rule for rule in points["report"] if rule)) or "–"
    searched = f"searched on {first.column}, {space.samples} samples per cell: {', '.join(space.search)}"
    seeds = f"confirmations with the seed{'s' * (len(space.seeds) > 1)} {', '.join(map(str, space.seeds))}"
    return "; ".join(
        [
            f"report: {rules}",
            f"cost: {_from_to(points['cost']) or '–'} gradient evaluations per training image{flops}",
            searched if space.search else "nothing searched",
            f"figures: mean ± standard deviation over {seeds if space.seeds else 'seeds'}, "
            f"n = {' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))}",
        ]
    )


def _with_levels(
    sweep: SweepTables, points: pd.DataFrame, pairs: Sequence[tuple[Row, list[Row]]], by: Sequence[str],
    accuracy: str, measures: Sequence[str],
) -> pd.DataFrame:  # fmt: skip
    """Return the points and a point for each earlier level. Only final networks have a latency."""
    of_trial = levels_of(sweep, [row["trial"] for _, best in pairs for row in best])
    densities = _density_by_level(sweep)
    earlier = [
        {**_point(asked, rows, by, accuracy), **_means(rows, measures), "front": False, "level": number}
        for asked, best in pairs
        for number, rows in _earlier(best, of_trial, densities, measures).items()
    ]
    rows = [*points.assign(level=None).to_dict("records"), *earlier]
    whole: pd.DataFrame = pd.DataFrame(rows).astype({"level": "Int64", "front": bool})
    return whole


def _earlier(
    best: Sequence[Row],
    of_trial: Mapping[str, Mapping[int, Row]],
    densities: Mapping[tuple[str, int], float],
    measures: Sequence[str],
) -> dict[int, list[Row]]:
    """The rows of every level before the last one, which is the trials' own figure."""
    found: dict[int, list[Row]] = {}
    for row in best:
        levels = of_trial.get(row["trial"], {})
        for number in list(levels)[:-1]:
            density = densities.get((row["trial"], number), math.nan)
            of_level = {"cost_flops": None, **dict.fromkeys(measures), **levels[number], "density": density}
            found.setdefault(number, []).append({**row, **of_level})
    return dict(sorted(found.items()))


def _from_to(figures: pd.Series[Any]) -> str:
    """The least and the largest of the known figures; empty if none is known."""
    known = figures.dropna()
    return " to ".join(dict.fromkeys(f"{figure:.4g}" for figure in (known.min(), known.max()))) if len(known) else ""


def without_figure(sweep: SweepTables) -> str:
    """One line on the cells that have no figure, and so no part in :func:`points_of`; empty if every cell has one.

    Of the kind ``without a figure: 3 of 36 cells: method=l1, stage_pr=0.9 (4 failed); 2 that have no trial yet``.
    """
    space = _space_of(sweep)
    groups, found = [path for path in space.paths if path != "seed"], _cells(sweep, space, ())
    lacking = [cell for cell in found if not cell.figures]
    begun = max(space.cells - len(found), 0)
    if not lacking and not begun:
        return ""
    each = []
    for cell in lacking[:_CELLS_SHOWN]:
        values = ", ".join(f"{path}={v}" for path, v in zip(groups, cell.group, strict=True) if v is not None)
        why = cell.waiting or f"{cell.infeasible} outside the constraints"
        each.append(f"{values} ({why})" if values else why)
    more = len(lacking) - len(each)
    each += [f"{more} more"] * (more > 0) + [f"{begun} that ha{'s' if begun == 1 else 've'} no trial yet"] * (begun > 0)
    return f"without a figure: {len(lacking) + begun} of {max(space.cells, len(found))} cells: {'; '.join(each)}"


def _space_of(sweep: SweepTables) -> StoredSpace:
    space = stored_space(sweep)
    if space is None:
        raise UserError(f"{sweep.path.name} has no sweep.yaml, but a comparison needs a space's cells: sweep a space")
    return space


def _point(values: Row, best: Sequence[Row], by: Sequence[str], accuracy: str) -> Row:
    there = {path: value for path, value in values.items() if value is not None}
    accuracies = [row[accuracy] for row in best]
    return {
        "series": ", ".join(str(there[path]) for path in by if path in there),
        "dataset": there.get("dataset"),
        "asked": ", ".join(f"{path}={value}" for path, value in there.items() if path not in by),
        "density": mean([row["density"] for row in best]),
        "accuracy": mean(accuracies),
        "accuracy_std": std(accuracies),
        "flops": mean([row["flops"] for row in best]),
        "cost": mean([row.get("cost") for row in best]),
        "cost_flops": mean([row.get("cost_flops") for row in best]),
        "report": rules_of(best),
        "n": sum(value is not None for value in accuracies),
        "confirmed": best[0]["confirmed"],
        "best": " | ".join(dict.fromkeys(row["best"] for row in best)),
        "warnings": codes_of(best),
    }
