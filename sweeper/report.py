"""What a sweep came to: one line per group of cells that differ only in their seed, means and deviations over seeds.

Hyperparameters are chosen per cell by the objective (on validation data), among complete trials; test accuracy stands
beside it and chooses nothing.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweeper.ledger import SweepFolder
from sweeper.tables import Sweep, config_column, read
from trials.lease import Lease

ACCURACIES = ("val_accuracy", "test_accuracy")
DONE = frozenset({"complete", "pruned"})
FAILURES_SHOWN = 20

Row = dict[str, Any]


def summarise(
    sweep: Sweep, *, objective: str, direction: str, grid: Sequence[str], search: Sequence[str] = ()
) -> pd.DataFrame:
    """One row per group of cells that share every grid value but ``seed``, and per level where trials have levels.

    Args:
        sweep: the tables; ``layers`` is not used.
        objective: the column of ``trials`` by which a cell's best trial is chosen.
        direction: ``maximize`` or ``minimize``.
        grid: the dotted paths that span the grid.
        search: the dotted paths that were searched.

    Returns:
        ``kind``: ``group``, or ``dense`` for the networks that the trials start from; the grid paths without ``seed``,
        named as in ``trials``; ``level``; ``density_asked``; ``density``; of val_accuracy, test_accuracy and the
        objective ``<name>_mean`` and ``<name>_std`` (ddof 1); ``n``: the seeds these are over; ``best``: the best
        trials' hyperparameters; ``trials``, ``done``, ``failed``: how many; ``waiting``: how far the cells are that
        have no complete trial.
    """
    groups = [path for path in grid if path != "seed"]
    group_columns = [_column(path) for path in groups]
    cells = list(_cells(sweep, objective, direction, groups, search))
    levels = _levels(sweep, [cell.best["trial"] for cell in cells if cell.best is not None])
    figures = list(dict.fromkeys((*ACCURACIES, objective)))
    members: dict[tuple[Any, ...], list[_Cell]] = {}
    for cell in cells:
        members.setdefault(cell.group, []).append(cell)
    rows = _dense_rows(sweep, cells, groups, figures)
    for key, group in members.items():
        rows += _group_rows(dict(zip(group_columns, key, strict=True)), group, levels, figures, search)
    names = [f"{figure}_{what}" for figure in figures for what in ("mean", "std")]
    counts = ["n", "best", "trials", "done", "failed", "waiting"]
    columns = ["kind", *group_columns, "level", "density_asked", "density", *names, *counts]
    summary: pd.DataFrame = pd.DataFrame(rows, columns=columns).astype({"level": "Int64"})
    return summary


def _column(path: str) -> str:
    """Of ``trials``, for a grid path; a sweep without a space has a line per ``trial``."""
    return path if path == "trial" else config_column(path)


@dataclass(frozen=True)
class _Cell:
    """A group's trials with one seed."""

    group: tuple[Any, ...]
    seed: Any
    trials: list[Row]
    best: Row | None
    waiting: str


def _cells(
    sweep: Sweep, objective: str, direction: str, groups: Sequence[str], search: Sequence[str]
) -> Iterator[_Cell]:
    """Every cell that has a trial, densities from dense to sparse, other values from low to high."""
    paths = [*groups, "seed"]
    columns = [_column(path) for path in paths]
    wanted = {
        "trial",
        "status",
        "density",
        config_column("density"),
        *ACCURACIES,
        objective,
        *map(config_column, search),
    }
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in _rows(sweep.trials, wanted.union(columns)):
        found.setdefault(tuple(row.get(column) for column in columns), []).append(row)
    last = {row["trial"]: row for row in _rows(sweep.epochs, {"trial", "stage", "level", "epoch"})}
    sign = 1 if direction.startswith("max") else -1
    for key in sorted(found, key=lambda key: _order(paths, key)):
        trials = found[key]
        complete = [t for t in trials if t["status"] == "complete" and _is_number(t.get(objective))]
        best = max(complete, key=lambda t: sign * t[objective], default=None)
        yield _Cell(key[:-1], key[-1], trials, best, "" if best else _how_far(key[-1], trials, last))


def _rows(frame: pd.DataFrame, columns: set[str]) -> list[Row]:
    """Rows as dictionaries, None where there is nothing."""
    part = frame[[column for column in frame.columns if column in columns]].astype(object)
    records = part.where(part.notna(), None).to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _order(paths: Sequence[str], key: Sequence[Any]) -> tuple[tuple[int, float, str], ...]:
    """Sorts values of every kind, nothing last."""
    order = []
    for path, value in zip(paths, key, strict=True):
        if isinstance(value, (int, float)):
            order.append((0, -value if path == "density" else value, ""))
        else:
            order.append((2 if value is None else 1, 0.0, str(value)))
    return tuple(order)


def _how_far(seed: object, trials: Sequence[Row], last: Mapping[str, Row]) -> str:
    """For a cell without a complete trial: how its trials stand, and where the furthest of the unfinished ones is."""
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial["status"]] = counts.get(trial["status"], 0) + 1
    text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    rows = [last[t["trial"]] for t in trials if t["status"] in ("running", "preempted") and t["trial"] in last]
    if rows:
        row = max(rows, key=lambda row: (row["level"], row["stage"] != "pretrain", row["epoch"]))
        text += f" (at {row['stage']}, level {row['level']}, epoch {row['epoch']})"
    return text if seed is None else f"seed {seed}: {text}"


def _levels(sweep: Sweep, trials: Sequence[str]) -> dict[str, dict[int, Row]]:
    """The last row of every level of the trials that have several; the dense network's is not one of them."""
    found: dict[str, dict[int, Row]] = {}
    rows = sweep.epochs[sweep.epochs["trial"].isin(trials)]
    for row in _rows(rows, {"trial", "stage", "level", "density", *ACCURACIES}):
        found.setdefault(row["trial"], {})[row["level"]] = row
    several = {trial: levels for trial, levels in found.items() if len(levels) > 1}
    return {t: {n: row for n, row in levels.items() if row["stage"] != "pretrain"} for t, levels in several.items()}


def _group_rows(
    values: Row,
    cells: Sequence[_Cell],
    levels: Mapping[str, dict[int, Row]],
    figures: Sequence[str],
    search: Sequence[str],
) -> Iterator[Row]:
    trials = [trial for cell in cells for trial in cell.trials]
    best = [cell.best for cell in cells if cell.best is not None]
    statuses = [trial["status"] for trial in trials]
    common = {
        "kind": "group",
        **values,
        "density_asked": _agreed([trial.get(config_column("density")) for trial in trials]),
        "best": "  ".join(f"{path}={_joined([b.get(config_column(path)) for b in best])}" for path in search if best),
        "trials": len(trials),
        "done": sum(status in DONE for status in statuses),
        "failed": statuses.count("failed"),
        "waiting": "; ".join(cell.waiting for cell in cells if cell.waiting),
    }
    of_level: dict[int | None, list[Row]] = {}
    for trial in best:
        for level, row in levels.get(trial["trial"], {None: trial}).items():
            of_level.setdefault(level, []).append(row)
    for level in sorted(of_level, key=lambda level: -1 if level is None else level):
        yield {**common, "level": level, **_figures(of_level[level], figures)}
    if not of_level:
        yield {**common, "level": None, **_figures([], figures)}


def _agreed(values: Sequence[Any]) -> Any:
    return values[0] if len(set(values)) == 1 else None


def _joined(values: Sequence[Any]) -> str:
    """One value if the seeds agree, otherwise each seed's."""
    texts = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    return texts[0] if len(set(values)) == 1 else " | ".join(texts)


def _figures(rows: Sequence[Row], figures: Sequence[str]) -> Row:
    found: Row = {"n": len(rows), "density": _mean([row.get("density") for row in rows])}
    for figure in figures:
        values = [row.get(figure) for row in rows]
        found[f"{figure}_mean"], found[f"{figure}_std"] = _mean(values), _std(values)
    return found


def _mean(values: Sequence[Any]) -> float:
    numbers = [float(value) for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def _std(values: Sequence[Any]) -> float:
    """Of a sample: divided by n - 1; NaN for one value."""
    numbers = [float(value) for value in values if value is not None]
    mean = _mean(numbers)
    return math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1)) if len(numbers) > 1 else math.nan


def _dense_rows(sweep: Sweep, cells: Sequence[_Cell], groups: Sequence[str], figures: Sequence[str]) -> list[Row]:
    """The dense networks that the best trials of other methods start from: a row per set of groups that share them."""
    rows = sweep.epochs[(sweep.epochs["stage"] == "pretrain") & sweep.epochs["stage_id"].notna()]
    last = {row["trial"]: row for row in _rows(rows, {"trial", "stage_id", "density", *ACCURACIES})}
    pruned = set(sweep.epochs["trial"][sweep.epochs["stage"] != "pretrain"])
    sets: list[tuple[dict[str, Row], list[tuple[Any, ...]]]] = []  # networks by stage, the groups that start from them
    for cell in cells:
        row = last.get(cell.best["trial"]) if cell.best is not None and cell.best["trial"] in pruned else None
        if row is None:
            continue
        networks, keys = {row["stage_id"]: row}, [cell.group]
        for other in [s for s in sets if cell.group in s[1] or row["stage_id"] in s[0]]:
            sets.remove(other)
            networks, keys = {**other[0], **networks}, [*other[1], *keys]
        sets.append((networks, keys))
    found = []
    for networks, keys in sets:
        shared = {_column(p): _agreed([key[i] for key in keys]) for i, p in enumerate(groups) if p != "density"}
        found.append({"kind": "dense", **shared, "level": None, **_figures(list(networks.values()), figures)})
    return found


def show(path: Path, console: Console) -> None:
    """Print how a sweep stands, also while it runs elsewhere.

    Raises:
        UserError: ``path`` is not a sweep's folder, or its sweep.yaml is damaged.
    """
    sweep = read(path, rows=("epochs",))
    documents = SweepFolder(path).documents()
    space: dict[str, Any] = (
        documents[-1]["space"] if documents else {"grid": ["trial"]}
    )  # python -m trials has no space
    _line(console, _standing(sweep, space))
    print_report(
        sweep,
        console,
        objective=space.get("objective", "val_accuracy"),
        direction=space.get("direction", "maximize"),
        grid=list(space.get("grid") or ()),
        search=list(space.get("search") or ()),
    )


def _standing(sweep: Sweep, space: Mapping[str, Any]) -> str:
    """One line: cells and trials, counted in samples (a trial may serve several), and who drives the sweep."""
    trials = sweep.trials.assign(samples=sweep.trials["samples"].clip(lower=1))
    counts = trials.groupby("status")["samples"].sum().to_dict()
    done, running, failed = (sum(counts.get(s, 0) for s in kind) for kind in (DONE, {"running"}, {"failed"}))
    line = f"{sweep.path.name}: "
    total = int(trials["samples"].sum())
    if "samples" in space:
        cells = math.prod(len(values) for values in space["grid"].values())
        over = trials[trials["status"].isin(DONE | {"failed"})].groupby("cell")["samples"].sum()
        total = max(cells * space["samples"], total)
        line += f"{cells} cells, {int((over >= space['samples']).sum())} done; "
    left = total - done - running - failed
    line += f"{total} trials, {done} done, {running} running, {failed} failed, {left} left"
    owner = Lease(sweep.path / "lock").owner()
    if owner is not None and not owner.surely_dead:
        return line if (owner.host, owner.pid) == (socket.gethostname(), os.getpid()) else f"{line}; driven by {owner}"
    return f"{line}; nobody drives it now" if "samples" in space and left + running else line


def print_report(
    sweep: Sweep,
    console: Console,
    *,
    objective: str,
    direction: str,
    grid: Sequence[str],
    search: Sequence[str] = (),
) -> None:
    """Print :func:`summarise`, failures, and where the tables are. Plain aligned text where there is no terminal."""
    summary = summarise(sweep, objective=objective, direction=direction, grid=grid, search=search)
    if len(summary):
        _print_table(_texts(summary, objective, [path for path in grid if path != "seed"]), console)
    failed = sweep.trials[sweep.trials["status"] == "failed"]
    for row in _rows(failed.head(FAILURES_SHOWN), {"trial", "error_type", "error_message"}):
        _line(console, f"failed: {row['trial']}: {row['error_type']}: {' '.join((row['error_message'] or '').split())}")
    if len(failed) > FAILURES_SHOWN:
        _line(console, f"failed: and {len(failed) - FAILURES_SHOWN} more (error_message in the table trials)")
    for line in sweep.damaged:
        _line(console, f"left out: {line}")
    tables = sweep.path / "tables"
    written = "" if (tables / "manifest.json").exists() else " (written at the end; sweeper.load works at any time)"
    _line(console, f"tables: {tables}{written}")


def _texts(summary: pd.DataFrame, objective: str, groups: Sequence[str]) -> dict[str, list[str]]:
    """The summary's columns as texts, accuracies and densities in per cent; columns that say nothing are left out."""
    rows = _rows(summary, set(summary.columns))
    keys = [(row["kind"], *(row[_column(path)] for path in groups)) for row in rows]
    first = [i == 0 or keys[i] != keys[i - 1] for i in range(len(rows))]  # of a group's levels

    def once(texts: Sequence[str]) -> list[str]:
        return [text if show else "" for text, show in zip(texts, first, strict=True)]

    shown = {path: once([_text(row[_column(path)]) for row in rows]) for path in groups if path != "density"}
    shown["level"] = [_text(row["level"]) for row in rows]
    shown["density asked %"] = [_percent(row["density_asked"]) for row in rows]
    label = shown["level" if any(shown["level"]) else "density asked %"]
    label[:] = ["dense" if row["kind"] == "dense" else text for row, text in zip(rows, label, strict=True)]
    shown["density %"] = [_percent(row["density"]) for row in rows]
    for figure in dict.fromkeys((*ACCURACIES, objective)):
        scale = 100 if figure.endswith("accuracy") else 1
        shown[figure + " %" * (scale == 100)] = [_spread(row, figure, scale) for row in rows]
    shown["n"] = [_text(row["n"]) for row in rows]
    shown["done"] = once([f"{row['done']:.0f}/{row['trials']:.0f}" if row["trials"] else "" for row in rows])
    shown["failed"] = once([f"{row['failed']:.0f}" if row["failed"] else "" for row in rows])
    shown["best"] = once([row["best"] or "" for row in rows])
    shown["not complete"] = once([row["waiting"] or "" for row in rows])
    return {name: texts for name, texts in shown.items() if any(texts)}


def _text(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _spread(row: Row, figure: str, scale: float) -> str:
    """mean ± std; – for what there is too little of."""
    mean, std = row[f"{figure}_mean"], row[f"{figure}_std"]
    if mean is None:
        return "–"
    return f"{scale * mean:.2f} ± {'–' if std is None else f'{scale * std:.2f}'}"


_LEFT = frozenset({"best", "not complete"})


def _print_table(columns: Mapping[str, Sequence[str]], console: Console) -> None:
    if console.is_terminal:
        table = Table()
        for name in columns:
            table.add_column(name, justify="left" if name in _LEFT else "right")
        for texts in zip(*columns.values(), strict=True):
            table.add_row(*map(escape, texts))
        console.print(table)
        return
    widths = {name: max(map(len, (name, *texts))) for name, texts in columns.items()}
    for texts in (tuple(columns), *zip(*columns.values(), strict=True)):
        aligned = (
            text.ljust(width) if name in _LEFT else text.rjust(width)
            for text, (name, width) in zip(texts, widths.items(), strict=True)
        )
        _line(console, "  ".join(aligned).rstrip())


def _line(console: Console, text: str) -> None:
    """One line, however long, without markup."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)
