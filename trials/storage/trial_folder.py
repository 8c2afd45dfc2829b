"""A trial's folder: commits, file names and repair. Only this module knows the file names; the sweeper uses it too.

A commit writes checkpoint, rows and state, in this order, each atomically. ``state.json`` names the files that count,
so files that a kill leaves behind are never read. File names carry commit number, attempt and a hash of the content: a
late writer never touches its successor's files, and damage is detected by the hash. A checkpoint holds a copy of the
trial's rows, so a damaged row file is rewritten without computing anything again. The commit before the last one stays
until the trial is finished, in case that the last checkpoint gets damaged; shared trials keep it.

Others may write in a storage. So what is read is checked like input: state and checkpoint name the trial, no name in
them leads out of the folder, links are not followed, and what cannot be read is set aside as damaged.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from trials.errors import DamagedFile, Superseded
from trials.storage import files
from trials.storage.committed_files import FILE_KINDS, rows_in
from trials.storage.packed.reading import packed_state
from trials.storage.place import ObjectPath, Place
from trials.storage.rows import FINISHED, Rows
from trials.storage.safe_read import require_own_folder
from trials.storage.trial_state import CHECKPOINT_NAME, Commit, State
from trials.storage.written_files import WrittenFiles

__all__ = ["Attempt", "Commit", "State", "TrialFolder"]

OF_ATTEMPTS = ("state.json", *FILE_KINDS)
"""How the names of what attempts write begin, also once it was set aside."""


class TrialFolder(WrittenFiles):
    """A trial's folder. Any process may read it; :meth:`begin` starts an attempt, which may write."""

    def is_new(self) -> bool:
        """Whether no attempt has begun: the folder holds nothing that one writes, or has set aside.

        That takes two requests to an object store, and makes :meth:`verify` and :meth:`state` superfluous.
        """
        with suppress(DamagedFile):
            require_own_folder(self.path)
            own = any(name.startswith(OF_ATTEMPTS) for name in files.names(self.path))
            return not own and packed_state(self.path) is None
        return False

    def verify(self, *, checkpoint: bool = False) -> list[str]:
        """Check the row files (and the checkpoint) of the last commit; set damaged files aside and repair if possible.

        Call it only as the trial's owner, or once the trial is finished.

        Returns one line per damaged file. Damaged rows are rewritten from the checkpoint. A commit whose checkpoint is
        damaged is dropped from the state; the trial then continues from the commit before it, or from the start: a
        finished trial has one commit only, unless it is a shared trial.
        """
        try:
            state = self.state()
        except DamagedFile:
            return self.recover()[1]
        if state is None or (not state.commits and self.last_attempt() <= state.attempt):
            return []
        if not state.finished and self.last_attempt() > state.attempt:
            line = f"{self.state_path} is older than the files beside it: the trial goes on from them"
            (kept, _), lines = self.recover()
            self.write_state(kept)
            return [line, *lines]
        last = state.commits[-1]
        whole = not any(self._rows_damage(last, table) for table in last.rows)
        if whole and not (checkpoint and self._checkpoint_damage(last)):
            if checkpoint and state.finished:
                self.remove_others(state)  # its process may have been killed before it did so
            return []
        _, lines = self.recover()
        return lines

    def _rows_damage(self, commit: Commit, table: str) -> DamagedFile | None:
        try:
            self.table(commit, table)
        except DamagedFile as damage:
            return damage
        return None

    def _checkpoint_damage(self, commit: Commit) -> DamagedFile | None:
        try:
            self.checkpoint(commit)
        except DamagedFile as damage:
            return damage
        return None

    def recover(self) -> tuple[tuple[State, dict[str, Any]], list[str]]:
        """Return the newest state that can be continued with its checkpoint, and one line per damaged file.

        Damaged files are set aside; damaged row files are rewritten from the checkpoint.
        """
        lines = self.put_away_strangers()
        try:
            state = self.state()
        except DamagedFile as damage:
            lines.append(self.put_away(damage, self.state_path))
            state = None
        last_attempt = self.last_attempt()
        if state is None or state.attempt < last_attempt:  # a late writer may have overwritten its successor's state
            state = State(attempt=last_attempt, commits=tuple(self._scan()))
        for position in range(len(state.commits) - 1, -1, -1):
            commit = state.commits[position]
            try:
                checkpoint = self.checkpoint(commit)
            except DamagedFile as damage:
                lines.append(self.put_away(damage, self.path / "checkpoint" / (commit.checkpoint or "")))
                continue
            if commit.checkpoint is None and (lost := self._put_away_rows(commit)):  # the space keeps no checkpoint
                lines += lost
                continue
            commit = self._repair_rows(commit, checkpoint, lines)
            last = position == len(state.commits) - 1
            kept = replace(state, commits=(*state.commits[:position], commit))
            kept = kept if last and state.commits else replace(kept, status="running", result={})
            if lines:
                self.write_state(kept)
            return (kept, checkpoint), lines
        fresh = replace(state, commits=(), progress={}, result={}, status="running")
        if lines:
            self.write_state(fresh)
        return (fresh, {}), lines

    def put_away_strangers(self) -> list[str]:
        """Set aside what lies at the places of the trial's folders and is none, such as a link; a line for each."""
        lines = []
        for path in (self.path, *(self.path / kind for kind in FILE_KINDS)):
            try:
                require_own_folder(path)
            except DamagedFile as damage:
                lines.append(self.put_away(damage, path))
        return lines

    def put_away(self, damage: DamagedFile, path: Place) -> str:
        """Set aside what is damaged, if it is there, and return the line that says so."""
        with suppress(FileNotFoundError):  # another process may have done so
            return f"{damage}; set aside as {files.set_aside(path).name}"
        return str(damage)

    def _repair_rows(self, commit: Commit, checkpoint: Mapping[str, Any], lines: list[str]) -> Commit:
        rows = rows_in(checkpoint)
        repaired, gone = dict(commit.rows), set[str]()  # tables may share a file
        for table in {*commit.rows, *(t for t, content in rows.items() if content)}:
            name, damage = commit.rows.get(table), self._rows_damage(commit, table)
            if name is not None:
                if damage is None:
                    continue
                if name not in gone:
                    lines.append(self.put_away(damage, self.path / "rows" / name))
                gone.add(name)
            repaired[table] = self.write_rows(table, rows.get(table, []), commit.number, self.last_attempt())
        return replace(commit, rows=repaired)

    def _put_away_rows(self, commit: Commit) -> list[str]:
        """Set damaged row files of a commit aside, and return a line for each."""
        found = {name: self._rows_damage(commit, table) for table, name in commit.rows.items()}
        return [self.put_away(damage, self.path / "rows" / name) for name, damage in found.items() if damage]

    def _scan(self) -> list[Commit]:
        """Commits found by their checkpoint files, oldest first, without row files: the checkpoints hold the rows."""
        names = files.names(self.path / "checkpoint")
        found = [(match, name) for name in names if (match := CHECKPOINT_NAME.fullmatch(name))]
        found.sort(key=lambda item: (int(item[0]["attempt"]), int(item[0]["commit"])))
        return [Commit(int(match["commit"]), name, {}) for match, name in found]

    def remove_others(self, state: State) -> None:
        """Delete files that no commit of ``state`` names, except damaged ones set aside and those of later attempts."""
        named = {name for commit in state.commits for name in (commit.checkpoint, *commit.rows.values())}
        for kind, (pattern, _) in FILE_KINDS.items():
            require_own_folder(self.path / kind)
            for name in files.names(self.path / kind):
                match = pattern.fullmatch(name)
                if match and name not in named and int(match["attempt"]) <= state.attempt:
                    with suppress(IsADirectoryError, PermissionError):  # a folder of such a name is none of ours
                        (self.path / kind / name).unlink(missing_ok=True)

    def begin(
        self, *, host: str = "", device: str = "", environment: Mapping[str, Any] | None = None, new: bool = False
    ) -> tuple[Attempt, dict[str, Any]]:
        """Start the next attempt; return it and the checkpoint it continues from (empty if nothing is committed).

        ``new``: the folder was found to be new (:meth:`is_new`), so that there is nothing to continue.
        """
        with suppress(DamagedFile):  # which recover sets aside
            require_own_folder(self.path)
            files.remove_leftovers(self.path)
        (before, checkpoint), lines = ((State(), {}), []) if new else self.recover()
        state = replace(before, attempt=before.attempt + 1, host=host, device=device)
        state = replace(state, status="running", error=None, started=state.started or _now(), ended="")
        if environment is not None:
            others = [other for other in before.computed_in if other != environment]
            state = replace(state, environments=(*others, dict(environment)))
        self.write_state(state)
        return Attempt(self, state, tuple(lines), new=new), checkpoint


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Attempt:
    """One process's attempt at a trial; only the latest attempt may commit.

    Args:
        new: whether the folder held no files of attempts when this one began.
    """

    def __init__(self, folder: TrialFolder, state: State, warnings: tuple[str, ...] = (), *, new: bool = False) -> None:
        self.folder = folder
        self.state = state
        self.warnings = warnings
        self._only_mine = new

    def commit(
        self,
        *,
        checkpoint: Mapping[str, Any],
        rows: Rows,
        progress: dict[str, Any],
        seconds: float,
        spare: bool = False,
        **fields: Any,
    ) -> None:
        """Commit checkpoint, rows and state. ``fields`` set further fields of the state (status, result).

        The commit before stays until the trial is finished: an unfinished trial can then continue from it if this
        checkpoint gets damaged. ``spare``: it stays in a finished trial, too.

        Raises:
            Superseded: a later attempt has begun; this commit does not count.
        """
        number = self.state.commits[-1].number + 1 if self.state.commits else 1
        if not isinstance(self.folder.path, ObjectPath):  # there, two requests to save what is rarely in vain
            self.refuse_if_superseded()
        checkpoint = {**checkpoint, "rows": json.dumps(rows)}
        name = self.folder.write_checkpoint(checkpoint, number, self.state.attempt)
        row_names = self.folder.write_tables(rows, number, self.state.attempt)
        earlier = self.state.commits
        before = earlier[-1:] if spare or fields.get("status") not in FINISHED else ()
        commits = (*before, Commit(number, name, row_names))
        self._write(commits=commits, progress=progress, seconds=seconds, **fields)
        if earlier or not self._only_mine:  # otherwise there are no others
            self.folder.remove_others(self.state)

    def builds_on(self, other: State) -> None:
        """Count the environments of another trial, whose network this one starts from or uses, among its own."""
        own = self.state.environments
        others = [found for found in other.computed_in if found not in own]
        self.state = replace(self.state, environments=(*others, *own))

    def copies(self, other: State) -> None:
        """Take over when and where another trial was computed, as this one only repeats what that one computed."""
        self.state = replace(self.state, started=other.started, host=other.host, device=other.device)
        self.state = replace(self.state, environments=other.computed_in)

    def end(self, status: str, **fields: Any) -> None:
        """Record in the state how the attempt ended, without a new checkpoint or rows.

        Raises:
            Superseded: a later attempt has begun.
        """
        self._write(status=status, **fields)

    def refuse_if_superseded(self) -> None:
        try:
            now = self.folder.state()
        except DamagedFile:
            now = None
        if now is not None and now.attempt > self.state.attempt:
            raise Superseded(
                f"{self.folder.path.name}: attempt {self.state.attempt} may not commit, since {now.attempt} has begun"
            )

    def _write(self, **fields: Any) -> None:
        self.refuse_if_superseded()
        over = fields.get("status", "running") != "running"
        self.state = replace(self.state, **fields)
        if over:
            self.state = replace(self.state, ended=_now())
        self.folder.write_state(self.state)
