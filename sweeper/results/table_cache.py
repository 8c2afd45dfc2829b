"""Read every trial of a sweep: from the cached tables if it has not changed since, otherwise from its folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweeper.columns import COLUMNS, TEXT, config_column
from sweeper.folder.confirmations import CONFIRM
from sweeper.folder.replicates import replicate_in
from sweeper.folder.stamps import Stamp
from sweeper.folder.sweep_folder import Record, SweepFolder, read_samples
from sweeper.results.arrow_tables import finish, from_rows, stack
from sweeper.results.column_types import TABLES_SCHEMA, base_of, described_column, digest_of_columns
from sweeper.results.frames import SweepTables, frame_of
from sweeper.results.lineage import lineage_rows
from trials.dotted_paths import leaves
from trials.errors import DamagedFile
from trials.storage import files
from trials.storage.config_file import CONFIG, TRIAL_NAME, read_config
from trials.storage.outages import errs, in_a_run
from trials.storage.packed.reading import packed_damage, part_by_part
from trials.storage.place import ObjectPath, Place, each
from trials.storage.rows import TABLES as ROW_TABLES
from trials.storage.safe_read import ROW_BYTES, read_plain, require_own_folder
from trials.storage.sealed import read_sealed
from trials.storage.trial_folder import State, TrialFolder

TRIES = 5
"""How often a trial with missing or damaged files is read."""

PAUSE_S = 0.02
"""Seconds before reading a trial again: a worker may replace files between the reads of its state and its rows."""

TRIALS_AT_ONCE = 500
"""Trials whose files and rows are held as Python's objects and small tables at a time."""


@dataclass(frozen=True)
class TableCache:
    """The tables as last written; empty if there are none, or if their files are from different compactions."""

    stamps: dict[str, Stamp] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: SweepFolder) -> TableCache:
        """Read the cache of a sweep."""
        for _ in range(2):  # a compaction may be under way
            try:
                require_own_folder(folder.tables)
                manifest, _ = read_sealed(folder.tables / "manifest.json", ("schema", "columns", "tables", "trials"))
                if (manifest["schema"], manifest["columns"]) != (TABLES_SCHEMA, digest_of_columns()):
                    return cls()
                hashes = {name: str(manifest["tables"][name]) for name in COLUMNS}
                contents = {
                    name: read_plain(folder.tables / f"{name}.parquet", ROW_BYTES, digest)
                    for name, digest in hashes.items()
                }
                if {name: files.digest(content) for name, content in contents.items()} == hashes:
                    tables = {name: _parquet(content) for name, content in contents.items()}
                    return cls(dict(manifest["trials"]), tables)
            except (OSError, ValueError, KeyError, TypeError, DamagedFile):
                continue
        return cls()

    def rows(self, table: str, trials: Sequence[str]) -> Any:
        """The rows of some trials, without columns beside others that have no value there."""
        found = self.tables[table]
        found = found.filter(pc.is_in(found["trial"], value_set=pa.array(trials, TEXT)))
        for name in found.column_names:
            base = base_of(name)
            if base and found[name].null_count == len(found):
                found = found.drop_columns(name)
                if base not in found.column_names:
                    found = found.append_column(base, pa.nulls(len(found), described_column(table, base).type))
        return found


def _parquet(content: bytes) -> Any:
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)


@dataclass(frozen=True)
class _Trial:
    """The content of a trial's folder: its row of ``trials`` (None if its config is damaged), and its own rows."""

    row: dict[str, Any] | None
    tables: dict[str, Any]
    damaged: tuple[str, ...]
    finished: bool = False


@dataclass(frozen=True)
class GatheredTables:
    """A sweep's tables as Arrow, with a line per damaged file."""

    tables: dict[str, Any]
    stamps: dict[str, Stamp]
    """Stamps of the trials that were read completely; only these count as cached."""
    damaged: tuple[str, ...]
    current: bool
    """Whether the cache holds the same trials with the same stamps, so that there is nothing to write."""

    def cache(self) -> TableCache:
        """What the next call of :func:`gather` need not read again."""
        return TableCache(self.stamps, self.tables)

    def sweep(self, path: Place) -> SweepTables:
        """The tables as DataFrames."""
        frames = {name: frame_of(name, table) for name, table in self.tables.items()}
        return SweepTables(path, **frames, damaged=self.damaged)


FinishedRecords = Callable[[str], Record | None]
"""Gives the record of a finished trial by the name of its folder."""


def tables_as_written(folder: SweepFolder) -> GatheredTables:
    """The tables as last written, whatever trials have committed since; empty ones if there are none."""
    cache = TableCache.of(folder)
    tables = {table: finish(table, [cache.tables[table]] if table in cache.tables else []) for table in COLUMNS}
    return GatheredTables(tables, cache.stamps, tuple(packed_damage(folder.path)), current=True)


def gather(
    folder: SweepFolder,
    wanted: Collection[str] = ROW_TABLES,
    cache: TableCache | None = None,
    known: FinishedRecords | None = None,
) -> GatheredTables:
    """Read everything committed: unchanged trials from the cache, others from their folders.

    Args:
        folder: the sweep's.
        wanted: the tables of rows to read; ``trials`` and ``lineage`` are always read.
        cache: what an earlier call has gathered of the same tables; by default that of the sweep's folder.
        known: finished trials whose config and state need not be read. Used for an object store only, where that saves
            four requests for each.
    """
    known = known if isinstance(folder.path, ObjectPath) else None
    cache = TableCache.of(folder) if cache is None else cache
    stamps = folder.stamps()  # before any reading: a commit meanwhile makes a trial look outdated, not current
    if cache.stamps.keys() - stamps.keys():  # trials were removed by hand, and with them perhaps columns
        cache = TableCache()
    kept = [name for name in stamps if cache.stamps.get(name) == stamps[name]]
    parts = {table: [cache.rows(table, kept)] for table in ("trials", "lineage", *wanted) if kept}
    changed = [name for name in stamps if cache.stamps.get(name) != stamps[name]]
    sure = _sure(stamps, folder.path)
    whole, damaged = set(kept), list(packed_damage(folder.path))
    for start in range(0, len(changed), TRIALS_AT_ONCE):
        fresh = _read_trials(folder, changed[start : start + TRIALS_AT_ONCE], wanted, known)
        for table, part in _stacked(fresh).items():
            parts.setdefault(table, []).append(part)
        whole |= {name for name, trial in fresh.items() if not trial.damaged and (trial.finished or sure(name))}
        damaged += [line for trial in fresh.values() for line in trial.damaged]
    tables = {table: finish(table, parts.pop(table, [])) for table in COLUMNS}
    read = {name: stamp for name, stamp in stamps.items() if name in whole}
    return GatheredTables(tables, read, tuple(damaged), current=read == cache.stamps)


def _stacked(trials: Mapping[str, _Trial]) -> dict[str, Any]:
    """By table, the rows of these trials; without tables in which they have none."""
    stacked: dict[str, Any] = {}
    for table in COLUMNS:
        if table == "trials":
            rows = [trial.row for trial in trials.values() if trial.row is not None]
            stacked |= {table: from_rows(table, rows)} if rows else {}
        else:
            found = {name: trial.tables[table] for name, trial in trials.items() if table in trial.tables}
            stacked |= {table: stack(table, found)} if found else {}
    return stacked


def _sure(stamps: Mapping[str, Stamp], where: Place) -> Callable[[str], bool]:
    """Return a function that says whether a trial's stamp is sure to change with its next commit.

    An object store reports whole seconds, so two commits within one second look alike. A stamp counts as sure if it is
    more than 2 s older than the newest one.
    """
    if isinstance(where, Path):
        return lambda name: True
    newest = max((max(stamp[::2]) for stamp in stamps.values()), default=0)
    return lambda name: max(stamps[name][::2]) < newest - 2_000_000_000


def _read_trials(
    folder: SweepFolder, names: Sequence[str], wanted: Collection[str], known: FinishedRecords | None = None
) -> dict[str, _Trial]:
    """Read trials, by name and in the order given; those with missing or damaged files are read up to TRIES times."""
    found: dict[str, _Trial | None] = {}
    again = list(names)
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_S)
        again = part_by_part(folder.trials, again)
        trials = each(lambda name: _read_trial(folder.trials / name, wanted, known), again, folder.path)
        found |= dict(zip(again, trials, strict=True))
        again = [name for name in again if (trial := found[name]) is not None and trial.damaged]
        if not again:
            break
    return {name: trial for name in names if (trial := found.get(name)) is not None}


def _read_trial(path: Place, wanted: Collection[str], known: FinishedRecords | None = None) -> _Trial | None:
    """Read what is committed in a trial's folder; None if no trial was scheduled there."""
    if known is not None and (record := known(path.name)) is not None:
        samples = [asdict(sample) for sample in record.samples]
        return _with_rows(path, record.content, samples, record.state, [], wanted)
    try:
        content = read_config(path)
        config, samples = content.config, content.samples
        read_samples(samples, path)
    except (FileNotFoundError, NotADirectoryError):
        if TRIAL_NAME.fullmatch(path.name) and (path / "state.json").exists():
            return _Trial(None, {}, (f"{path / CONFIG} is missing",))
        return None
    except (OSError, DamagedFile) as damage:
        if errs(damage) and in_a_run():
            raise
        is_trial = TRIAL_NAME.fullmatch(path.name) or path.is_dir()  # other files may lie there, such as a desktop's
        return _Trial(None, {}, (str(damage),)) if is_trial else None
    folder = TrialFolder(path)
    damaged: list[str] = []
    try:
        state = folder.state()
    except DamagedFile as damage:
        state = None
        damaged.append(str(damage))
    if state is not None and (line := folder.outdated()) is not None:
        damaged.append(line)
    if state is None and not damaged and files.names(path / "rows"):
        damaged.append(f"{folder.state_path} is missing, but rows are there")
    return _with_rows(path, config, samples, state, damaged, wanted)


def _with_rows(
    path: Place,
    config: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    state: State | None,
    damaged: list[str],
    wanted: Collection[str],
) -> _Trial:
    """A trial whose config and state are known, with its rows."""
    folder, tables, read = TrialFolder(path), dict[str, Any](), dict[str, Any]()
    commits = state.commits[-1:] if state is not None else ()
    for commit, table in product(commits, wanted):
        try:
            found = folder.table(commit, table, read)
        except (DamagedFile, OSError, ValueError) as damage:
            if errs(damage) and in_a_run():
                raise
            damaged.append(str(damage))
        else:
            tables |= {table: found} if found is not None else {}
    places = lineage_rows(samples, config)
    tables |= {"lineage": from_rows("lineage", places)} if places else {}
    row = _trial_row(path.name, config, samples, state)
    return _Trial(row, tables, tuple(damaged), state is not None and state.finished)


def _trial_row(
    name: str, config: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], state: State | None
) -> dict[str, Any]:
    """A row of ``trials``. A trial that no worker has begun has the status ``scheduled``."""
    first: Mapping[str, Any] = samples[0] if samples else {}
    row: dict[str, Any] = {"trial": name, "cell": first.get("cell"), "number": first.get("number")}
    row["confirms"] = ((first.get("attrs") or {}).get(CONFIRM) or {}).get("trial")
    which = replicate_in(first.get("attrs") or {})
    row["dropped"] = None if which is None else which.dropped
    row |= {"samples": len(samples), "status": "scheduled", "attempts": 0, "failures": 0}
    if state is not None:
        error, result = state.error or {}, state.result
        row |= {"status": state.status, "attempts": state.attempt, "failures": state.failures}
        row |= {"error_type": error.get("type"), "error_message": error.get("message")}
        row |= {**result, "compression": _ratio(result, "prunable", "kept")}
        row |= {"speedup": _ratio(result, "dense_flops", "flops")}
        row |= {"compact_speedup": _ratio(result, "dense_flops", "compact_flops")}
        row |= {"seconds": state.seconds, "host": state.host, "device": state.device}
        row |= {"started": state.started or None, "ended": state.ended or None}
        where = state.environments
        row |= {**dict(*where[-1:]), "environments": len(where) if where and all(where) else None}
        row["precision"] = ", ".join(dict.fromkeys(x["precision"] for x in where if x.get("precision"))) or None
    fields = ((path, value) for path, value in leaves(config) if value != {} and (path != "plugins" or value))
    return row | {config_column(path): value for path, value in fields}


def _ratio(result: Mapping[str, Any], whole: str, part: str) -> float | None:
    return result[whole] / result[part] if result.get(whole) and result.get(part) else None
