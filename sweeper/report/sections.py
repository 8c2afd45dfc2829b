"""The parts of a report's page that are text: how the sweep stands, what was asked, what failed, and commands."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import yaml

from sweeper.report.gathered import Gathered
from sweeper.report.packed import readable
from sweeper.report.time_left import time_left
from sweeper.results.report import problem_lines
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.summary import mean
from sweeper.results.warned import warnings_line
from trials.called import sweep_command
from trials.storage.place import Place

FAILURES_LISTED = 50

_LONGEST_MESSAGE = 2000
"""Characters of an error's text in the list of failures."""

_SETTINGS = ("sampler", "pruner", "samples", "replicates", "confirm", "pbt", "constraints", "max_epochs", "resources")


def state(gathered: Gathered) -> dict[str, Any]:
    """How far the sweep is: its counts, a bar of them, and the time that is left."""
    standing = gathered.standing
    counts = {"done": standing.done, "running": standing.running, "failed": standing.failed, "left": standing.left}
    total = max(standing.total, 1)
    seconds = float(gathered.sweep.trials["seconds"].sum())
    cells = "" if standing.cells is None else f"{standing.cells_done} of {standing.cells}"
    cards = [
        ("trials done", f"{standing.done} of {standing.total}"),
        ("cells done", cells),
        *((kind, str(counts[kind])) for kind in ("running", "failed", "left") if counts[kind]),
        ("time of all trials", _hours(seconds) if seconds else ""),
        *_best(gathered),
    ]
    return {
        "standing": str(standing),
        "total": standing.total,
        "bar": [{"kind": kind, "percent": f"{100 * n / total:.2f}"} for kind, n in counts.items() if n],
        "bar_text": ", ".join(f"{n} {kind}" for kind, n in counts.items()),
        "left": time_left(gathered),
        "cards": [(label, value) for label, value in cards if value],
        "at": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(gathered.at)),
    }


def _best(gathered: Gathered) -> list[tuple[str, str]]:
    """The best value of the first objective over all cells: of a cell, its best point's, or its confirmations' mean."""
    objective = gathered.space.objectives[0]
    known = []
    for cell in gathered.cells:
        if cell.confirmed is None and cell.best is not None:
            known.append(cell.best.value(objective))
        elif cell.figures:
            known.append(mean([row[objective.column] for row in cell.figures]))
    if not known:
        return []
    value = max(known, key=lambda one: objective.sign * one)
    text = f"{100 * value:.2f} %" if objective.column.endswith("accuracy") else f"{value:.4g}"
    return [(f"best {objective.column.replace('_', ' ')} of any cell", text)]


def _hours(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def asked(gathered: Gathered) -> dict[str, Any]:
    """What the sweep was asked for, and what it ran with: space, data, code, versions, hardware."""
    last = gathered.documents[-1] if gathered.documents else {}
    space = last.get("space") if isinstance(last.get("space"), dict) else {}
    assert isinstance(space, dict)
    objectives = [f"{one.column} ({one.direction})" for one in gathered.space.objectives] if space else []
    first: list[tuple[str, Sequence[Any]]] = [
        ("trial", [_flow(space.get("trial"))]),
        ("grid", _lines(space.get("grid"))),
        ("search", _lines(space.get("search"))),
        ("objective", objectives),
    ]
    further: list[tuple[str, Sequence[Any]]] = [
        *((name, [_flow(space.get(name))]) for name in _SETTINGS if space.get(name) not in (None, [], {})),
        ("begun", [_first(gathered.documents).get("written")]),
        ("changed", [one.get("written") for one in gathered.documents[1:]]),
        *_ran_with(gathered, last),
    ]
    document = yaml.safe_dump(dict(last), sort_keys=False, width=100, allow_unicode=True) if last else ""
    return {
        "about": space.get("about") or "",
        "line": _one_line(gathered, space),
        "facts": _known(first),
        "further": _known(further),
        "document": document,
    }


def _one_line(gathered: Gathered, space: Mapping[str, Any]) -> str:
    """What was asked in a line: how many cells of which fields, what is searched in each, and for what."""
    if not space:
        return f"{len(gathered.sweep.trials)} trials, without a space"
    grid, search = list(space.get("grid") or {}), list(space.get("search") or {})
    cells = f"{gathered.space.cells} cells of {' × '.join(map(str, grid))}" if grid else "one cell"
    searched = f"; searched in each: {', '.join(map(str, search))}" if search else ""
    objectives = ", ".join(f"{one.column} ({one.direction})" for one in gathered.space.objectives)
    return f"{cells}{searched}; objective {objectives}"


def _known(facts: Sequence[tuple[str, Sequence[Any]]]) -> list[tuple[str, list[str]]]:
    """The facts that have a value, as texts."""
    return [(label, kept) for label, values in facts if (kept := [str(v) for v in values if v not in (None, "")])]


def _ran_with(gathered: Gathered, last: Mapping[str, Any]) -> list[tuple[str, Sequence[Any]]]:
    """Data, code and machines, as the trials say it; as ``sweep.yaml`` says it while no trial has."""
    trials = gathered.sweep.trials
    names = [name for name in ("config.dataset", "dataset") if name in trials]
    data = _counted(trials, [*names[:1], "data", "data_source"])
    listed = [
        f"{used.get('dataset')}: fingerprint {used.get('fingerprint')}"
        for used in last.get("data") or ()
        if isinstance(used, dict)
    ]
    versions = ", ".join(f"{name} {version}" for name, version in (last.get("versions") or {}).items())
    return [
        ("data", data or listed),
        ("commit", _counted(trials, ["commit"]) or [last.get("commit")]),
        ("versions", [versions]),
        ("plug-ins", _lines(last.get("plugins"))),
        ("hardware", _counted(trials, ["host", "device", "threads"])),
        ("torch, CUDA", _counted(trials, ["torch", "cuda"])),
        ("precision", _counted(trials, ["precision"])),
    ]


def _counted(trials: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The different values of some columns, each with its number of trials; rows without any are left out."""
    rows = trials[[name for name in names if name in trials]].dropna(how="all").astype("string").fillna("unknown")
    if rows.empty:
        return []
    counts = rows.value_counts(sort=True)
    shown = [f"{', '.join(_short(value) for value in key)} ({n} trials)" for key, n in counts.head(8).items()]
    return [*shown, *([f"and {len(counts) - 8} more"] if len(counts) > 8 else [])]


def _short(text: object) -> str:
    return str(text) if len(str(text)) <= 160 else f"{str(text)[:159]}…"


def _first(documents: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return documents[0] if documents else {}


def _lines(values: object) -> list[str]:
    return [f"{name}: {_flow(value)}" for name, value in values.items()] if isinstance(values, dict) else []


def _flow(value: object) -> str:
    """A value as YAML in one line."""
    if value is None or value in ({}, []):
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.removesuffix("\n...\n").strip().removeprefix("{").removesuffix("}")


def problems(gathered: Gathered) -> dict[str, Any]:
    """What has failed, what has degenerated, and what could not be read."""
    failed = gathered.sweep.trials[gathered.sweep.trials["status"] == "failed"]
    rows = rows_of(failed.head(FAILURES_LISTED), {"trial", "cell", "error_type", "error_message"})
    failures = [
        {
            "trial": row["trial"],
            "cell": row["cell"],
            "kind": row["error_type"] or "failed",
            "message": readable(row["error_message"] or "", _LONGEST_MESSAGE),
        }
        for row in rows
    ]
    warned = warnings_line(gathered.sweep, set(gathered.sweep.trials["trial"]))
    return {
        "failed": len(failed),
        "failures": failures,
        "lines": [*problem_lines(gathered.sweep, gathered.space), *filter(None, [warned])],
    }


def commands(gathered: Gathered) -> dict[str, Any]:
    """The command that began the sweep, and those that go on with it."""
    name, storage = gathered.sweep.path.name, _storage(gathered.sweep.path)
    command = f"python {sweep_command()}" if sweep_command() == "sweep.py" else sweep_command()
    named = f"{shlex.quote(name)}{storage}"
    made = [one["command"] for one in gathered.documents if isinstance(one.get("command"), str)]
    return {
        "commands": [
            *(("begun by" if i == 0 else "changed by", text) for i, text in enumerate(made)),
            ("go on" if not gathered.standing.complete else "run it again", f"{command} --resume {named}"),
            ("this page", f"{command} --report {named}"),
            ("as it runs", f"{command} --serve {named}"),
            ("in Python", f"sweeper.load({str(gathered.sweep.path)!r})"),
        ]
    }


def _storage(path: Place) -> str:
    parent = str(path.parent)
    return "" if parent == "results" else f" --storage {shlex.quote(parent)}"
