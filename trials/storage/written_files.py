"""Write what a trial commits: its state, and files of rows and checkpoints, which carry the hash of their content."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from trials.storage import files
from trials.storage.committed_files import CommittedFiles, several_tables, with_name
from trials.storage.place import ObjectPath
from trials.storage.row_schema import rows_as_table
from trials.storage.rows import Row, Rows
from trials.storage.safe_read import require_own_folder
from trials.storage.sealed import seal
from trials.storage.trial_state import State, state_document


class WrittenFiles(CommittedFiles):
    """A trial's folder, with its files written one by one; what they make together is the business of an attempt."""

    def state_text(self, state: State) -> bytes:
        """The content of ``state.json`` that says ``state``."""
        return seal(state_document(state, self.path.name))

    def write_state(self, state: State) -> None:
        require_own_folder(self.path)
        files.make_folder(self.path)
        files.write(self.state_path, self.state_text(state))

    def write_tables(self, rows: Rows, commit: int, attempt: int) -> dict[str, str]:
        """Write the rows of a commit into two files at most, and return their names by table.

        The rows of epochs have one to themselves. Of other tables most trials have one; several share a file. In an
        object store, where a file costs three requests, all share one.
        """
        there = {table: content for table, content in rows.items() if content}
        others = [table for table in there if table != "epochs" or isinstance(self.path, ObjectPath)]
        shared = others if len(others) > 1 else []
        names = {table: self.write_rows(table, there[table], commit, attempt) for table in there if table not in shared}
        if shared:
            buffer = io.BytesIO()
            pq.write_table(several_tables({table: rows_as_table(there[table]) for table in shared}), buffer)
            name = self._write("rows", f"{shared[0]}-{commit:06d}-a{attempt}", "parquet", buffer.getvalue())
            names |= dict.fromkeys(shared, name)
        return names

    def write_rows(self, table: str, rows: list[Row], commit: int, attempt: int) -> str:
        """Write one row file (Parquet) and return its name."""
        buffer = io.BytesIO()
        pq.write_table(rows_as_table(rows), buffer)
        return self._write("rows", f"{table}-{commit:06d}-a{attempt}", "parquet", buffer.getvalue())

    def write_checkpoint(self, checkpoint: Mapping[str, Any], commit: int, attempt: int) -> str:
        import torch

        buffer = io.BytesIO()
        torch.save(with_name(checkpoint, self.path.name), buffer)
        return self._write("checkpoint", f"{commit:06d}-a{attempt}", "pt", buffer.getvalue())

    def write_file(self, kind: str, name: str, content: bytes) -> None:
        """Write a committed file whose content is known, as when it is unpacked."""
        require_own_folder(self.path / kind)
        files.make_folder(self.path / kind)
        files.write(self.path / kind / name, content)

    def _write(self, kind: str, stem: str, suffix: str, content: bytes) -> str:
        name = f"{stem}-{files.digest(content)}.{suffix}"
        self.write_file(kind, name, content)
        return name
