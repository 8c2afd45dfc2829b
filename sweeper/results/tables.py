"""A sweep's four tables, derived from what its trials have committed; docs/tables.md says what the columns mean.

Tables under ``tables/`` are a cache: a trial that has committed nothing since they were written is taken from them,
every other one from its own rows, so that what :func:`load` returns is the same with tables, without, and with old
ones. They can be deleted at will.
"""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweeper.columns import COLUMNS, REAL, TEXT, WHOLE, config_column
from sweeper.folder.sweep_folder import Stamp, SweepFolder
from sweeper.results.lineage import lineage_rows
from trials.errors import DamagedFile, UserError
from trials.storage import files
from trials.storage.place import Place, each, place
from trials.storage.trial_folder import TABLES as ROW_TABLES
from trials.storage.trial_folder import State, TrialFolder

SCHEMA = 2
"""Raise it when columns change: tables of another schema are not read."""

TRIES = 5
PAUSE_S = 0.02
"""A worker may replace files between the reading of a state and of the rows it names: then both are read again."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep as four tables.

    Attributes:
        path: the sweep's folder.
        trials: one row per trial, by its id.
        epochs: one row per (trial, stage, level, epoch).
        layers: one row per (trial, stage, level, layer).
        allocations: one row per (trial, step, episode, layer).
        lineage: one row per (cell, generation, member) of population based training.
        damaged: a line for every file that could not be read; what it held is not in the tables.
    """

    path: Place
    trials: pd.DataFrame
    epochs: pd.DataFrame
    layers: pd.DataFrame
    allocations: pd.DataFrame
    lineage: pd.DataFrame = field(default_factory=pd.DataFrame)
    damaged: tuple[str, ...] = ()


def load(path: str | Place) -> Sweep:
    """The tables of the sweep at ``storage/name``, a path or ``s3://bucket/prefix/name``, also while it runs elsewhere.

    Writes nothing. Damaged files are left out, with a warning that lists them.

    Raises:
        UserError: ``path`` is not a sweep's folder.
    """
    sweep = read(path)
    if sweep.damaged:
        warnings.warn("left out of the tables: " + "; ".join(sweep.damaged), stacklevel=2)
    return sweep


def read(path: str | Place, rows: Collection[str] = ROW_TABLES) -> Sweep:
    """:func:`load` without the warning, :attr:`Sweep.damaged` is left to the caller; of the tables of rows only some,
    the others come out empty."""
    folder = SweepFolder(place(path))
    if not folder.trials.is_dir() and not (folder.path / "sweep.yaml").is_file():
        raise UserError(
            f"{str(path)!r} is not a sweep's folder (it holds neither trials/ nor sweep.yaml): give storage/name, "
            "e.g. results/bip_unstructured"
        )
    return _gather(folder, rows).sweep(folder.path)


def compact(folder: SweepFolder) -> Sweep:
    """Write the tables to ``tables/``, each by rename, and return them. Nothing is written when nothing has changed.

    ``tables/manifest.json`` says which trials, as committed when, the files hold; it is written last and names the
    files' hashes, so that a reader never takes half of one compaction and half of another.
    """
    gathered = _gather(folder)
    if gathered.stamps != _Cache.of(folder).stamps:
        folder.tables.mkdir(parents=True, exist_ok=True)
        hashes = {}
        for name, table in gathered.tables.items():
            buffer = io.BytesIO()
            pq.write_table(table, buffer)
            hashes[name] = files.digest(buffer.getvalue())
            files.write(folder.tables / f"{name}.parquet", buffer.getvalue())
        manifest = {"schema": SCHEMA, "tables": hashes, "trials": gathered.stamps}
        files.write(folder.tables / "manifest.json", json.dumps(manifest).encode())
    return gathered.sweep(folder.path)


@dataclass(frozen=True)
class _Cache:
    """The tables as they were last written; empty if there are none, or if they do not belong together."""

    stamps: dict[str, Stamp] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: SweepFolder) -> _Cache:
        for _ in range(2):  # a compaction may be under way
            try:
                manifest = json.loads((folder.tables / "manifest.json").read_bytes())
                if manifest["schema"] != SCHEMA:
                    return cls()
                contents = {name: (folder.tables / f"{name}.parquet").read_bytes() for name in COLUMNS}
                if {name: files.digest(content) for name, content in contents.items()} == manifest["tables"]:
                    tables = {name: _parquet(content) for name, content in contents.items()}
                    return cls(dict(manifest["trials"]), tables)
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return cls()

    def rows(self, table: str, trials: Sequence[str]) -> Any:
        """The rows of some trials; columns that hold nothing there have no type."""
        found = self.tables[table]
        found = found.filter(pc.is_in(found["trial"], value_set=pa.array(trials, TEXT)))
        columns = {name: found[name] for name in found.column_names}
        return pa.table({n: pa.nulls(len(c)) if c.null_count == len(c) else c for n, c in columns.items()})


def _parquet(content: bytes) -> Any:
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)


@dataclass(frozen=True)
class _Trial:
    """What a trial's folder holds: its row of ``trials`` (None if its config is damaged), and its own rows."""

    row: dict[str, Any] | None
    tables: dict[str, Any]
    damaged: tuple[str, ...]
    finished: bool = False


@dataclass(frozen=True)
class _Gathered:
    tables: dict[str, Any]
    stamps: dict[str, Stamp]
    """Of the trials that were read whole."""
    damaged: tuple[str, ...]

    def sweep(self, path: Place) -> Sweep:
        types = {WHOLE: pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
        return Sweep(
            path, **{name: t.to_pandas(types_mapper=types.get) for name, t in self.tables.items()}, damaged=self.damaged
        )


def _gather(folder: SweepFolder, wanted: Collection[str] = ROW_TABLES) -> _Gathered:
    """Everything committed, from the cache where it still holds and from the trials' folders elsewhere."""
    cache = _Cache.of(folder)
    stamps = folder.stamps()  # before anything is read: what is committed meanwhile makes a trial look old, not new
    kept = [name for name in stamps if cache.stamps.get(name) == stamps[name]]
    fresh = _read_trials(folder, [name for name in stamps if cache.stamps.get(name) != stamps[name]], wanted)
    tables = {}
    for table in COLUMNS:
        parts = [cache.rows(table, kept)] if kept and table in ("trials", "lineage", *wanted) else []
        if table == "trials":
            rows = [trial.row for trial in fresh.values() if trial.row is not None]
            parts += [_from_rows(rows)] if rows else []
        else:
            found = {name: trial.tables[table] for name, trial in fresh.items() if table in trial.tables}
            parts += [_stack(found)] if found else []
        tables[table] = _finish(table, parts)
    sure = _sure(stamps, folder.path)
    whole = {*kept, *(name for name, trial in fresh.items() if not trial.damaged and (trial.finished or sure(name)))}
    damaged = tuple(line for trial in fresh.values() for line in trial.damaged)
    return _Gathered(tables, {name: stamp for name, stamp in stamps.items() if name in whole}, damaged)


def _sure(stamps: Mapping[str, Stamp], where: Place) -> Callable[[str], bool]:
    """Whether a trial's stamp will change with its next commit. An object store tells whole seconds only: two commits
    within the last of them look alike."""
    if isinstance(where, Path):
        return lambda name: True
    newest = max((max(stamp[::2]) for stamp in stamps.values()), default=0)
    return lambda name: max(stamps[name][::2]) < newest - 2_000_000_000


def _read_trials(folder: SweepFolder, names: Sequence[str], wanted: Collection[str]) -> dict[str, _Trial]:
    """Trials by name, in the order given; those with something missing or damaged are read again, a few times."""
    found: dict[str, _Trial | None] = {}
    again = list(names)
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_S)
        trials = each(lambda name: _read_trial(folder.trials / name, wanted), again, folder.path)
        found |= dict(zip(again, trials, strict=True))
        again = [name for name in again if (trial := found[name]) is not None and trial.damaged]
        if not again:
            break
    return {name: trial for name, trial in found.items() if trial is not None}


def _read_trial(path: Place, wanted: Collection[str]) -> _Trial | None:
    """What is committed in a trial's folder; None where no trial was ever scheduled."""
    try:
        content = json.loads((path / "config.json").read_bytes())
        config, samples = dict(content["config"]), list(content["samples"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _Trial(None, {}, (f"{path / 'config.json'} is damaged ({error})",))
    folder = TrialFolder(path)
    damaged: list[str] = []
    tables: dict[str, Any] = {}
    try:
        state = folder.state()
    except DamagedFile as damage:
        state = None
        damaged.append(str(damage))
    commits = state.commits[-1:] if state is not None else ()
    for commit, table in product(commits, wanted):
        try:
            found = folder.table(commit, table)
        except (DamagedFile, OSError, ValueError) as damage:
            damaged.append(str(damage))
        else:
            tables |= {table: found} if found is not None else {}
    places = lineage_rows(samples, config)
    tables |= {"lineage": _from_rows(places)} if places else {}
    row = _trial_row(path.name, config, samples, state)
    return _Trial(row, tables, tuple(damaged), state is not None and state.finished)


def _trial_row(
    name: str, config: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], state: State | None
) -> dict[str, Any]:
    """A row of ``trials``. ``scheduled`` is the status of a trial that no worker has begun."""
    first: Mapping[str, Any] = samples[0] if samples else {}
    row: dict[str, Any] = {"trial": name, "cell": first.get("cell"), "number": first.get("number")}
    row |= {"samples": len(samples), "status": "scheduled", "attempts": 0, "failures": 0}
    if state is not None:
        error, result = state.error or {}, state.result
        row |= {"status": state.status, "attempts": state.attempt, "failures": state.failures}
        row |= {"error_type": error.get("type"), "error_message": error.get("message")}
        row |= {**result, "compression": _ratio(result, "prunable", "kept")}
        row |= {"speedup": _ratio(result, "dense_flops", "flops")}
        row |= {"seconds": state.seconds, "host": state.host, "device": state.device}
    return row | {config_column(path): value for path, value in _flatten(config)}


def _ratio(result: Mapping[str, Any], whole: str, part: str) -> float | None:
    return result[whole] / result[part] if result.get(whole) and result.get(part) else None


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a config by its dotted path; a list as JSON."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, json.dumps(value) if isinstance(value, (list, tuple)) else value


def _from_rows(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as Arrow. A column of numbers and texts becomes text."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _array([row.get(name) for row in rows]) for name in names})


def _array(values: list[Any]) -> Any:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values], TEXT)


def _stack(tables: Mapping[str, Any]) -> Any:
    """The trials' tables on top of each other, with the column ``trial``."""
    stacked = _concat(list(tables.values()))
    index = np.repeat(np.arange(len(tables)), [len(table) for table in tables.values()])
    return stacked.append_column("trial", pa.array(list(tables), TEXT).take(pa.array(index)))


def _concat(tables: Sequence[Any]) -> Any:
    """Tables with different columns; whole and other numbers become float64, numbers and texts become text."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.concat_tables(_agree(tables), promote_options="permissive")


def _agree(tables: Sequence[Any]) -> list[Any]:
    """The tables, with columns whose types have nothing in common as text."""
    types: dict[str, set[Any]] = {}
    for table in tables:
        for column in table.schema:
            types.setdefault(column.name, set()).add(column.type)
    unlike = {
        name for name, kinds in types.items() if len(kinds - {pa.null()}) > 1 and kinds - {pa.null(), WHOLE, REAL}
    }
    return [
        table.cast(pa.schema([f.with_type(TEXT) if f.name in unlike else f for f in table.schema])) for table in tables
    ]


def _finish(name: str, parts: Sequence[Any]) -> Any:
    """One table of its parts: every documented column, the others by name, sorted by trial, then as the rows came."""
    known = COLUMNS[name]
    table = _concat(parts) if parts else pa.table({column: pa.nulls(0) for column in known})
    table = table.take(pc.sort_indices(table["trial"]))  # stable
    others = sorted(c for c in set(table.column_names) - set(known) if not _is_group(table, c))
    columns = {}
    for column in (*known, *others):
        values = table[column] if column in table.column_names else pa.nulls(len(table))
        wanted = known.get(column, TEXT if name == "trials" else REAL)
        if pa.types.is_null(values.type) or (column in known and wanted == REAL and values.type == WHOLE):
            values = values.cast(wanted)
        columns[column] = values
    return pa.table(columns).combine_chunks()


def _is_group(table: Any, column: str) -> bool:
    """Whether a column is only the absence of a group of fields: ``finetune: null`` beside ``finetune.epochs``."""
    return table[column].null_count == len(table) and any(c.startswith(f"{column}.") for c in table.column_names)
