"""Summarise a sweep: one row per group of cells that differ only in their seed, with means and deviations over seeds.

Each cell's best trial is chosen by the objective (on validation data) among its complete trials. Test accuracy is shown
beside it and chooses nothing. Where the best trial is confirmed, its own figures are not used: the confirmations' are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from sweeper.columns import config_column
from sweeper.means import deviation_of, mean_of
from sweeper.results.bounds import columns_needed, feasible
from sweeper.results.cell_trials import CellTrials, confirmed_of, searched_values
from sweeper.results.frames import SweepTables
from sweeper.results.points import (
    PointTrials,
    best_point,
    columns_of_replicates,
    is_number,
    nearest_to_bounds,
    points_in,
)
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.warned import codes_of, of_data
from sweeper.space.options.constraints import Constraint
from sweeper.space.options.objectives import Objective, objective_of
from sweeper.space.options.replicates import Replicates
from trials.storage.rows import FINISHED, Row

ACCURACIES = ("val_accuracy", "test_accuracy")

NETWORK_COSTS = ("flops", "parameters", "compact_flops", "compact_parameters")
"""Columns of a trial and of its rows that say what its network costs."""

SPENT = ("cost", "report")
"""Columns of a trial and of its rows that say what it has cost, and which of its epochs counts."""

_COUNTS = (
    *("n", "cost", "report", "confirmed", "searched", "warnings"),
    *("best", "trials", "done", "failed", "infeasible", "waiting"),
)


def summarise(
    sweep: SweepTables,
    *,
    objective: str,
    direction: str,
    grid: Sequence[str],
    search: Sequence[str] = (),
    constraints: Sequence[Constraint] = (),
    beside: Sequence[str] = (),
    confirm: int = 0,
    replicates: Replicates | None = None,
) -> pd.DataFrame:
    """Return a row per group of cells that share every grid value but ``seed``; a row per level if trials have levels.

    Args:
        sweep: the tables; ``layers`` is not used.
        objective, direction: the column of ``trials`` by which a cell's best trial is chosen; ``maximize`` or
            ``minimize``, another word is refused with a UserError.
        grid, search: dotted paths of the grid and of the searched hyperparameters.
        constraints: bounds that a cell's best point must keep. ``beside``: further columns of ``trials`` to show.
        confirm: number of confirmations of a cell's best point. ``replicates``: those of every point, its seeds then.

    Returns:
        Columns ``kind``: ``group``, or ``dense`` for the networks that the trials start from; the grid paths without
        ``seed``, named as in ``trials``; ``level``; ``density_asked``; ``density``; ``<name>_mean`` and ``<name>_std``
        (ddof 1) of val_accuracy, test_accuracy, the objective and ``beside``, of the best trials or of what confirms
        them; ``n``: number of seeds in these; ``cost`` (mean, up to a level's end) and ``report``: as in ``trials``;
        ``confirmed``: how many confirmations are complete; ``searched``: the objective of the confirmed trial itself;
        ``warnings``: codes of all these trials, or of their level; ``best``: their hyperparameters; ``trials``,
        ``done``, ``failed``, ``infeasible``: numbers of trials; ``waiting``: progress of cells without a figure.
    """
    groups = [path for path in grid if path != "seed"]
    figures = list(dict.fromkeys((*ACCURACIES, objective, *beside)))
    by = objective_of(objective, direction)
    cells = list(cells_of(sweep, by, groups, search, constraints, figures, confirm, replicates))
    levels = levels_of(sweep, [row["trial"] for cell in cells for row in cell.figures])
    rows = _dense_rows(sweep, cells, groups, figures)
    for key, group in _by_group(cells).items():
        values = dict(zip(map(column_of, groups), key, strict=True))
        rows += _group_rows(values, group, levels, figures, search, objective)
    names = [f"{figure}_{what}" for figure in figures for what in ("mean", "std")]
    columns = ["kind", *map(column_of, groups), "level", "density_asked", "density", *names, *_COUNTS]
    summary: pd.DataFrame = pd.DataFrame(rows, columns=columns).astype({"level": "Int64"})
    return summary


def _by_group(cells: Sequence[CellTrials]) -> dict[tuple[Any, ...], list[CellTrials]]:
    members: dict[tuple[Any, ...], list[CellTrials]] = {}
    for cell in cells:
        members.setdefault(cell.group, []).append(cell)
    return members


def column_of(path: str) -> str:
    """The column of ``trials`` for a grid path; a sweep without a space has the path ``trial``, one group per trial."""
    return path if path == "trial" else config_column(path)


_OF_CELLS = ("trial", "cell", "confirms", "status", "density", "warnings", config_column("density"), "until_epoch")


def cells_of(
    sweep: SweepTables,
    objective: Objective,
    groups: Sequence[str],
    search: Sequence[str],
    constraints: Sequence[Constraint],
    figures: Sequence[str],
    confirm: int = 0,
    replicates: Replicates | None = None,
) -> Iterator[CellTrials]:
    """Yield every cell that has a trial, ordered by grid values: densities descending, other values ascending.

    A trial that the sweep did not ask for is of no cell, whatever values it has. ``confirm``: number of confirmations
    of a cell's best trial, which are no trials of its search.
    """
    paths = groups if replicates is not None and "seed" in replicates.values else [*groups, "seed"]
    columns = [column_of(path) for path in paths]
    wanted = {*_OF_CELLS, *SPENT, *figures, *map(config_column, search), *columns_needed(constraints)}
    wanted |= columns_of_replicates(replicates)
    found: dict[tuple[Any, ...], list[Row]] = {}
    confirming: dict[str, list[Row]] = {}  # by the trial that they confirm
    for row in rows_of(sweep.trials, wanted.union(columns)):
        if row.get("confirms") is not None:
            confirming.setdefault(row["confirms"], []).append(row)
        elif row.get("cell") is not None or groups == ["trial"]:
            found.setdefault(tuple(row.get(column) for column in columns), []).append(row)
    begun = set(sweep.trials["trial"][sweep.trials["status"].isin(["running", "preempted"])])
    current = sweep.epochs[sweep.epochs["trial"].isin(begun)]
    last = {row["trial"]: row for row in rows_of(current, {"trial", "stage", "level", "epoch"})}
    for key in sorted(found, key=lambda key: order_of(paths, key)):
        trials = found[key]
        points = points_in(trials, replicates)
        complete = [t for t in trials if t["status"] == "complete" and is_number(t.get(objective.column))]
        best = best_point(_furthest(points, objective), objective, constraints)
        infeasible = {t["trial"] for t in complete if not feasible(t, constraints)}
        others = [t for t in trials if t["trial"] not in infeasible]
        seed = key[-1] if len(paths) > len(groups) else None
        cell = CellTrials(key[: len(groups)], seed, trials, best, len(infeasible))
        if confirm or confirming:
            best = best or nearest_to_bounds(points, objective, constraints)
            cell, others = _with_confirmations(cell, others, objective.column, confirm, best, confirming, constraints)
        yield cell if cell.figures or not others else replace(cell, waiting=_how_far(cell.seed, others, last))


def _with_confirmations(
    cell: CellTrials,
    others: list[Row],
    objective: str,
    confirm: int,
    best: PointTrials | None,
    confirming: Mapping[str, list[Row]],
    constraints: Sequence[Constraint],
) -> tuple[CellTrials, list[Row]]:
    """A cell with what confirms its best point, and the trials that it waits for."""
    mine = [row for one in best.rows for row in confirming.get(one["trial"], [])] if best else []
    if best is None or not (confirm or mine):
        return cell, others
    confirmed = confirmed_of(objective, confirm, best, mine, constraints)
    return replace(cell, seed=None, best=best, confirmed=confirmed), mine or others


def _furthest(points: Sequence[PointTrials], objective: Objective) -> list[PointTrials]:
    """The complete points of a population's last generation, which continue the earlier ones; else all."""
    complete = [point for point in points if point.is_complete([objective.column])]
    last = max((point.first.get("until_epoch") or 0 for point in complete), default=0)
    return [point for point in complete if (point.first.get("until_epoch") or 0) == last]


def order_of(paths: Sequence[str], key: Sequence[Any]) -> tuple[tuple[int, float, str], ...]:
    """Sort key for grid values of any type: numbers (densities descending), then texts, then None."""
    order = []
    for path, value in zip(paths, key, strict=True):
        if isinstance(value, (int, float)):
            order.append((0, -value if path == "density" else value, ""))
        else:
            order.append((2 if value is None else 1, 0.0, str(value)))
    return tuple(order)


def _how_far(seed: object, trials: Sequence[Row], last: Mapping[str, Row]) -> str:
    """Progress of a cell without a best trial: its trials by status, and how far the furthest unfinished one is."""
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial["status"]] = counts.get(trial["status"], 0) + 1
    text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    rows = [last[t["trial"]] for t in trials if t["status"] in ("running", "preempted") and t["trial"] in last]
    if rows:
        row = max(rows, key=lambda row: (row["level"], row["stage"] != "pretrain", row["epoch"]))
        text += f" (at {row['stage']}, level {row['level']}, epoch {row['epoch']})"
    return text if seed is None else f"seed {seed}: {text}"


def levels_of(sweep: SweepTables, trials: Sequence[str]) -> dict[str, dict[int, Row]]:
    """By trial and level, the last row of the level, for trials with several levels; without the dense network's.

    Where levels are counted anew, as by regrowth in rounds after pruning in rounds, they are those of the last count.
    """
    found: dict[str, dict[int, Row]] = {}
    numbers: dict[str, set[int]] = {}
    rows = sweep.epochs[sweep.epochs["trial"].isin(trials)]
    figures = {"trial", "stage", "level", "density", "cost_flops", "warnings", *SPENT, *ACCURACIES}
    for row in rows_of(rows, figures | set(NETWORK_COSTS)):
        levels = found.setdefault(row["trial"], {})
        if row["level"] < max(levels, default=0):
            levels.clear()
        levels[row["level"]] = row
        numbers.setdefault(row["trial"], set()).add(row["level"])
    several = {trial: levels for trial, levels in found.items() if len(numbers[trial]) > 1 and set(levels) != {0}}
    return {t: {n: row for n, row in levels.items() if row["stage"] != "pretrain"} for t, levels in several.items()}


def _group_rows(
    values: Row,
    cells: Sequence[CellTrials],
    levels: Mapping[str, dict[int, Row]],
    figures: Sequence[str],
    search: Sequence[str],
    objective: str,
) -> Iterator[Row]:
    trials = [trial for cell in cells for trial in cell.counted]
    best = [cell.best.first for cell in cells if cell.best is not None]
    statuses = [trial["status"] for trial in trials]
    searched = [trial for cell in cells for trial in cell.confirmed_trials]
    common = {
        "kind": "group",
        **values,
        "density_asked": _agreed([trial.get(config_column("density")) for trial in trials]),
        "best": searched_values(best, search, absent=True) if best else "",
        "trials": len(trials),
        "done": sum(status in FINISHED for status in statuses),
        "failed": statuses.count("failed"),
        "infeasible": sum(cell.infeasible for cell in cells),
        "waiting": "; ".join(cell.waiting for cell in cells if cell.waiting),
        "confirmed": "; ".join(cell.confirmed.text for cell in cells if cell.confirmed),
        "searched": mean([trial[objective] for trial in searched]),
    }
    of_level: dict[int | None, list[Row]] = {}
    for trial in (row for cell in cells for row in cell.figures):
        mine = levels.get(trial["trial"], {None: trial})
        for level, row in mine.items():
            last = level == list(mine)[-1]  # the result's codes are those of the last level and of the data
            codes = trial.get("warnings") if last else [*(row.get("warnings") or ()), *of_data(trial)]
            of_level.setdefault(level, []).append({**row, "warnings": codes})
    for level in sorted(of_level, key=lambda level: -1 if level is None else level):
        warnings = codes_of([*of_level[level], *searched])
        yield {**common, "level": level, **_figures(of_level[level], figures), "warnings": warnings}
    if not of_level:
        yield {**common, "level": None, **_figures([], figures), "warnings": codes_of(searched)}


def _agreed(values: Sequence[Any]) -> Any:
    return values[0] if len(set(values)) == 1 else None


def _figures(rows: Sequence[Row], figures: Sequence[str]) -> Row:
    found: Row = {"n": len(rows), "density": mean([row.get("density") for row in rows]), "warnings": codes_of(rows)}
    found |= {"cost": mean([row.get("cost") for row in rows]), "report": rules_of(rows)}
    for figure in figures:
        values = [row.get(figure) for row in rows]
        found[f"{figure}_mean"], found[f"{figure}_std"] = mean(values), std(values)
    return found


def rules_of(rows: Sequence[Row]) -> str:
    """Which epoch counts in these rows; all rules if they differ, empty where older versions did not say it."""
    return ", ".join(dict.fromkeys(row["report"] for row in rows if row.get("report")))


def mean(values: Sequence[Any]) -> float:
    """Mean of the values that are not None; NaN if there are none."""
    return mean_of([float(value) for value in values if value is not None])


def std(values: Sequence[Any]) -> float:
    """Standard deviation (ddof 1) of the values that are not None; NaN for fewer than two."""
    return deviation_of([float(value) for value in values if value is not None])


def _dense_rows(
    sweep: SweepTables, cells: Sequence[CellTrials], groups: Sequence[str], figures: Sequence[str]
) -> list[Row]:
    """Rows of the dense networks that pruned best trials start from: one per set of groups that share networks."""
    rows = sweep.epochs[(sweep.epochs["stage"] == "pretrain") & sweep.epochs["stage_id"].notna()]
    rows = rows.drop_duplicates("trial", keep="last")
    last = {
        row["trial"]: row for row in rows_of(rows, {"trial", "stage_id", "density", "warnings", *SPENT, *ACCURACIES})
    }
    pruned = set(sweep.epochs["trial"][sweep.epochs["stage"] != "pretrain"])
    starts: dict[str, _Starts] = {}  # by stage id
    of_group: dict[tuple[Any, ...], _Starts] = {}
    for trial, group in [(trial, cell.group) for cell in cells for trial in cell.figures]:
        row = last.get(trial["trial"]) if trial["trial"] in pruned else None
        if row is None:
            continue
        row |= {"warnings": [*(row.get("warnings") or ()), *of_data(trial)]}
        here = of_group.get(group) or starts.get(row["stage_id"]) or _Starts({}, {})
        there = starts.get(row["stage_id"], here)
        if there is not here:  # the cell links two sets: merge them
            here.networks.update(there.networks)
            here.groups.update(there.groups)
            starts |= dict.fromkeys(there.networks, here)
            of_group |= dict.fromkeys(there.groups, here)
        here.networks[row["stage_id"]], here.groups[group] = row, None
        starts[row["stage_id"]] = of_group[group] = here
    found = []
    for start in {id(start): start for start in starts.values()}.values():
        keys = list(start.groups)
        shared = {column_of(p): _agreed([key[i] for key in keys]) for i, p in enumerate(groups) if p != "density"}
        found.append({"kind": "dense", **shared, "level": None, **_figures(list(start.networks.values()), figures)})
    return found


@dataclass(frozen=True, eq=False)
class _Starts:
    """Dense networks, by stage id, and the groups that start from at least one of them."""

    networks: dict[str, Row]
    groups: dict[tuple[Any, ...], None]
