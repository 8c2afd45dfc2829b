"""What a trial has committed, read and checked: its state, and the checkpoint and the rows that the state names.

Others may write in a storage, so all of it is checked like input: state and checkpoint name the trial, no name in them
leads out of the folder, links are not followed, and what cannot be read is damaged.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trials.errors import DamagedFile, one_line, shown
from trials.storage import files
from trials.storage.packed.reading import packed_checkpoint, packed_state, packed_table
from trials.storage.packed.stacked_rows import RowSpan, rows_at, shapes_of, stack_rows
from trials.storage.place import ObjectPath, Place, as_stored
from trials.storage.row_content import require_columns, require_content
from trials.storage.row_schema import table_as_rows
from trials.storage.rows import Rows
from trials.storage.safe_read import CHECKPOINT_BYTES, ROW_BYTES, read_plain, require_own_folder
from trials.storage.sealed import read_sealed, unseal
from trials.storage.sweep_path import has_fixed_name
from trials.storage.trial_state import CHECKPOINT_NAME, OLDER_STATE, ROWS_NAME, Commit, State, state_in

MOST_ROW_VALUES = 1 << 28
"""Most rows times columns of a file of rows. A few bytes of Parquet can stand for any number of equal values."""

_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_OF_TRIAL = "trial"
_NO_MEMORY = re.compile("can't allocate memory|not enough memory|out of memory", re.IGNORECASE)

_OF_NETWORKS = frozenset({"architecture", "cost"})
"""What commits of trials hold, of which any shows that a network, its position and its data must be there."""


FILE_KINDS = {"checkpoint": (CHECKPOINT_NAME, CHECKPOINT_BYTES), "rows": (ROWS_NAME, ROW_BYTES)}
"""The folders of committed files, with the names that these have and their largest sizes."""


class CommittedFiles:
    """What lies in a trial's folder, or is packed; reading it changes nothing."""

    def __init__(self, path: Place) -> None:
        self.path = as_stored(path)
        self.state_path = self.path / "state.json"
        self._name = path.name if has_fixed_name(path) else None

    def state(self) -> State | None:
        """Return the committed state, or None if there is none.

        Raises:
            DamagedFile: ``state.json`` is no file, cannot be parsed, or is another trial's.
        """
        try:
            require_own_folder(self.path)
            content, _ = read_sealed(self.state_path, OLDER_STATE)
            own = state_in(content, self._name)
            other = self._packed_state()
            return own if other is None or own.standing >= other.standing else other
        except FileNotFoundError:
            packed = packed_state(self.path)
            return None if packed is None else self.state_of(packed)
        except (DamagedFile, ValueError, TypeError) as error:
            raise self._no_state(error) from None

    def _packed_state(self) -> State | None:
        """What is packed of a trial that has a state of its own, too; an object store, where that costs a request, is
        not asked: a driver sets such a state aside."""
        if isinstance(self.path, ObjectPath):
            return None
        try:
            packed = packed_state(self.path)
            return None if packed is None else self.state_of(packed)
        except DamagedFile:
            return None

    def outdated(self) -> str | None:
        """Why the trial's own state must be an older one that was put back; None if nothing says so, and of objects."""
        if isinstance(self.path, ObjectPath):
            return None
        try:
            own = self.state_of(read_plain(self.state_path))
        except (FileNotFoundError, NotADirectoryError, DamagedFile):
            return None
        packed = self._packed_state()
        if packed is not None and own.standing < packed.standing:
            return f"{self.state_path} is older than what is packed of the trial"
        if not own.finished and self.last_attempt() > own.attempt:
            return f"{self.state_path} is older than the files beside it"
        return None

    def last_attempt(self) -> int:
        """The number of the last attempt that has committed a file; 0 without any."""
        attempts = (
            int(match["attempt"])
            for kind, (pattern, _) in FILE_KINDS.items()
            for name in files.names(self.path / kind)
            if (match := pattern.fullmatch(name.partition(".damaged")[0]))
        )
        return max(attempts, default=0)

    def state_of(self, text: bytes) -> State:
        """Return the state that a content of ``state.json`` says. Raises DamagedFile if it says none of this trial."""
        try:
            return state_in(unseal(text, self.state_path, OLDER_STATE)[0], self._name)
        except (DamagedFile, ValueError, TypeError) as error:
            raise self._no_state(error) from None

    def _no_state(self, error: Exception) -> DamagedFile:
        reason = str(error).removeprefix(f"{self.state_path} is ")
        return DamagedFile(f"{self.state_path} is not a committed state ({reason})")

    def rows(self, commit: Commit) -> Rows:
        """Return a commit's rows by table.

        Raises:
            DamagedFile: a row file is missing, does not match the hash in its name, or holds no rows.
        """
        read: dict[str, pa.Table] = {}
        tables = {name: self.table(commit, name, read) for name in commit.rows}
        return {name: table_as_rows(table) for name, table in tables.items() if table is not None}

    def table(self, commit: Commit, table: str, read: dict[str, pa.Table] | None = None) -> pa.Table | None:
        """Return one table of a commit's rows as an Arrow table; None if the commit has no rows in that table.

        ``read`` keeps the contents of files that hold several tables, by name, for the next call.

        Raises:
            DamagedFile: the row file is missing, does not match the hash in its name, or holds no rows.
        """
        name = commit.rows.get(table)
        if name is None:
            return None
        path, whole = self.path / "rows" / name, (read or {}).get(name)
        try:
            if whole is None:
                whole = load_table(self.read("rows", name), path)
        except DamagedFile:
            if (packed := packed_table(self.path, table, name)) is None:
                raise
            return require_content(packed, table, path)
        if read is not None:
            read[name] = whole
        return require_content(table_in(whole, table, path), table, path)

    def checkpoint(self, commit: Commit) -> dict[str, Any]:
        """Return the checkpoint of a commit, on CPU; empty if the commit has none.

        Raises:
            DamagedFile: the file is missing, does not match the hash in its name, or cannot be loaded.
            MemoryError: there is not enough memory to load it.
        """
        if commit.checkpoint is None:
            return {}
        content = self.read("checkpoint", commit.checkpoint)
        return load_checkpoint(content, self.path / "checkpoint" / commit.checkpoint, self._name)

    def read(self, kind: str, name: str) -> bytes:
        """Return a committed file's content; raises DamagedFile if it is missing or does not match its name's hash."""
        pattern, most = FILE_KINDS[kind]
        match = pattern.fullmatch(name)
        if match is None:
            raise DamagedFile(f"{self.path / kind} cannot hold {name!r}, which is no name of a committed file")
        path = self.path / kind / name
        try:
            for folder in (self.path, path.parent):
                require_own_folder(folder)
            content = read_plain(path, most, match["hash"])
        except (FileNotFoundError, NotADirectoryError):
            found = packed_checkpoint(self.path, name) if kind == "checkpoint" else None
            if found is None:
                raise DamagedFile(f"{path} is missing") from None
            content = found
        if files.digest(content) != match["hash"]:
            raise DamagedFile(f"{path} is damaged: its content does not match the hash in its name")
        return content


def with_name(checkpoint: Mapping[str, Any], trial: str) -> dict[str, Any]:
    """A checkpoint that names the trial that it belongs to."""
    return {**checkpoint, _OF_TRIAL: trial}


def load_checkpoint(content: bytes, path: Place, trial: str | None) -> dict[str, Any]:
    """Return the checkpoint that a file holds, on the CPU, without the trial's name, which must be ``trial`` if given.

    Raises:
        DamagedFile: this torch cannot load it, it is another trial's, or its rows are none. Which error torch raises of
            a file of another version, or of a class that it does not know, is not documented, so all of them count.
        MemoryError: there is not enough memory to load it.
    """
    import torch  # here, so that reading rows and states does not import torch

    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  see above
        text = " ".join(str(error).split())
        if isinstance(error, RuntimeError) and _NO_MEMORY.search(text):
            raise MemoryError(f"{path} cannot be loaded: {text[:200]}") from None
        raise DamagedFile(f"{path} cannot be loaded by torch {torch.__version__} ({_reason(error, text)})") from None
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise DamagedFile(f"{path} is no checkpoint: it holds a {type(loaded).__name__}")
    if (owner := loaded.pop(_OF_TRIAL, trial)) != trial and trial is not None:
        raise DamagedFile(f"{path} belongs to {shown(owner)}")
    try:
        rows_in(loaded)
        _require_network(loaded)
    except (ValueError, TypeError) as error:
        raise DamagedFile(f"{path} is no checkpoint: {error}") from None
    return loaded


def _require_network(checkpoint: Mapping[str, Any]) -> None:
    """Check what every commit of a trial holds: its network, its position and its data's fingerprint.

    Raises:
        ValueError, TypeError: something else of a commit is there, but not these, or they are of other types.
    """
    if not checkpoint.keys() & _OF_NETWORKS:
        return  # not of a trial that trains a network
    if not isinstance(net := checkpoint.get("net"), dict):
        raise TypeError(f"its net is {shown(net)}" if "net" in checkpoint else "it has no net")
    if lacking := [name for name in ("position", "data") if name not in checkpoint]:
        raise ValueError(f"it has no {lacking[0]}")
    if lacking := [name for name in ("model", "masks") if not isinstance(net.get(name), Mapping)]:
        raise ValueError(f"its net has no {lacking[0]}")
    position, data = checkpoint["position"], checkpoint["data"]
    if not isinstance(position, dict) or any(type(position[k]) is not int for k in position) or "stage" not in position:
        raise ValueError(f"its position is {shown(position)}")
    if not isinstance(data, str):
        raise TypeError(f"its data is {shown(data)}")


def _reason(error: Exception, text: str) -> str:
    """Why torch did not load a checkpoint, without its advice on how to load what may run code."""
    if named := re.search(r"GLOBAL (\S+) was not an allowed", text):
        return f"it holds {named[1]}, which weights_only=True does not load"
    return f"{type(error).__name__}: {one_line(text.rpartition('WeightsUnpickler error: ')[2])[:150]}"


def rows_in(checkpoint: Mapping[str, Any]) -> Rows:
    """Return the rows that a checkpoint holds a copy of, by table.

    Raises:
        ValueError, TypeError: they are no rows, or of a table whose name could not be a file's.
    """
    try:
        rows = json.loads(checkpoint.get("rows", "{}"))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"its rows cannot be read ({error})") from None
    if not isinstance(rows, dict):
        raise TypeError(f"its rows are {shown(rows)}")
    for table, content in rows.items():
        if not _TABLE.fullmatch(table):
            raise ValueError(f"it has rows of the table {shown(table)}")
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise ValueError(f"its rows of {table} are {shown(content)}")
    return rows


def load_table(content: bytes, path: Place) -> pa.Table:
    """Return the rows that a Parquet file holds.

    Raises:
        DamagedFile: it is no Parquet, or has columns that no trial writes.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        require_columns(file.schema_arrow, path)
        if file.metadata.num_rows * max(file.metadata.num_columns, 1) > MOST_ROW_VALUES:
            raise DamagedFile(f"{path} has {file.metadata.num_rows} rows of {file.metadata.num_columns} columns")
        return file.read(use_threads=False)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"{path} cannot be read ({one_line(' '.join(str(error).split()))[:200]})") from None


_TABLES = b"tables"


def several_tables(tables: Mapping[str, pa.Table]) -> pa.Table:
    """One table for a file that holds several; :func:`table_in` gives each back as it was."""
    together, spans = stack_rows(tables)
    said = json.dumps({table: asdict(span) for table, span in spans.items()})
    return together.replace_schema_metadata({**together.schema.metadata, _TABLES: said})


def table_in(content: pa.Table, table: str, path: Place) -> pa.Table:
    """Return the table of that name in a row file, which holds one, or :func:`several_tables`.

    Raises:
        DamagedFile: it holds others.
    """
    said = (content.schema.metadata or {}).get(_TABLES)
    try:
        if said is not None:
            return rows_at(content, shapes_of(content), RowSpan(**json.loads(said)[table]), table)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DamagedFile(f"{path} cannot be read as rows of {table} ({error!r})") from None
    match = ROWS_NAME.fullmatch(path.name)
    if match is None or match["table"] != table:
        raise DamagedFile(f"{path} holds no rows of {table}")
    return content
