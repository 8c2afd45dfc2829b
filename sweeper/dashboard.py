"""Serve a sweep with optuna-dashboard, from a copy in an Optuna storage with one study per cell.

The copy is derived: it is written anew at every start, follows the sweep while it is shown, and is never read back.
"""

from __future__ import annotations

import threading
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from sweeper.folder.search_ends import read_shorter
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.cells.cell_studies import metric_names, studied_points, study_name
from sweeper.space.load import from_document
from trials.errors import UserError
from trials.optional import require
from trials.storage import files
from trials.storage.place import Place
from trials.storage.scratch import scratch_until_exit

optuna.logging.set_verbosity(optuna.logging.WARNING)

PORT = 8080
REFRESH_EVERY_S = 10.0


class StudyCopy:
    """The samples of a sweep's searches as Optuna studies; :meth:`refresh` updates them from what is committed."""

    def __init__(self, folder: SweepFolder, storage: BaseStorage) -> None:
        self.folder, self.storage = folder, storage
        document = folder.space_document()
        if document is None:
            raise UserError(f"{folder.path} is not a sweep's folder (it has no sweep.yaml): give a sweep's name")
        self.space = from_document(document)
        self._studies: dict[str, int] = {}
        self._trials: dict[tuple[str, int], tuple[int, FrozenTrial]] = {}
        self._ends: dict[str, str] = {}  # by cell, why its search has ended before its samples

    def refresh(self) -> None:
        """Add new samples and update those that were not finished."""
        for point in studied_points(self.space, self.folder, self.folder.records()):
            key, trial = (point.cell, point.number), point.trial
            known = self._trials.get(key)
            if known is None:
                trial_id = self.storage.create_new_trial(self._study(point.cell), trial)
            elif known[1].state.is_finished() or _figures(known[1]) == _figures(trial):
                continue
            else:
                trial_id = known[0]
                self._go_on(trial_id, known[1], trial)
            self._trials[key] = (trial_id, trial)
        ends = {cell: str(one) for cell, one in read_shorter(self.folder.path).items() if one.over}
        for cell, end in ends.items():
            if cell in self._studies and self._ends.get(cell) != end:
                self.storage.set_study_user_attr(self._studies[cell], "ended early", end)
        self._ends = ends

    def _go_on(self, trial_id: int, before: FrozenTrial, now: FrozenTrial) -> None:
        if before.state == TrialState.WAITING and now.state != TrialState.WAITING:
            self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        for step in now.intermediate_values.keys() - before.intermediate_values.keys():
            self.storage.set_trial_intermediate_value(trial_id, step, now.intermediate_values[step])
        for key, value in now.user_attrs.items():
            self.storage.set_trial_user_attr(trial_id, key, value)
        for key, value in now.system_attrs.items():
            self.storage.set_trial_system_attr(trial_id, key, value)
        if now.state.is_finished():
            self.storage.set_trial_state_values(trial_id, now.state, now.values)

    def _study(self, cell: str) -> int:
        if cell not in self._studies:
            directions = [StudyDirection[objective.direction.upper()] for objective in self.space.objectives]
            study_id = self.storage.create_new_study(directions, study_name(self.folder, cell))
            self.storage.set_study_system_attr(study_id, "study:metric_names", metric_names(self.space))
            self._studies[cell] = study_id
        return self._studies[cell]


def _figures(trial: FrozenTrial) -> tuple[Any, ...]:
    return (trial.state, trial.values, trial.intermediate_values, trial.user_attrs)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Do not log requests."""


def write_copy(folder: SweepFolder) -> StudyCopy:
    """Write the copy anew to ``tables/optuna.journal``.

    It lies in a temporary folder if the sweep is in an object store or its folder cannot be written.
    """
    copy = StudyCopy(folder, optuna.storages.InMemoryStorage())  # raises if it is no sweep, before anything is written
    tables = folder.tables
    if not isinstance(tables, Path) or not _writable(tables):
        tables = scratch_until_exit()
    path = tables / "optuna.journal"
    for old in tables.glob(f"{path.name}*"):
        old.unlink()
    copy.storage = JournalStorage(JournalFileBackend(str(path)))
    copy.refresh()
    return copy


def _writable(folder: Path) -> bool:
    try:
        files.require_writable(folder)
    except OSError:
        return False
    return True


def serve(path: Place, console: Console, *, port: int = PORT) -> None:
    """Serve a sweep to browsers on this machine until interrupted; uses another port if ``port`` is taken."""
    dashboard = require("optuna_dashboard", "dashboard", "--dashboard")
    copy = write_copy(SweepFolder(path))
    app = dashboard.wsgi(copy.storage)
    server = _bind(app, port)
    over = threading.Event()
    threading.Thread(target=_follow, args=(copy, over, console), daemon=True).start()
    console.print(f"http://127.0.0.1:{server.server_port}/ shows {path.name}; Ctrl-C ends it", markup=False)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print("ended", markup=False)
    finally:
        over.set()
        server.server_close()


def _follow(copy: StudyCopy, over: threading.Event, console: Console) -> None:
    """Refresh the copy until ``over``. If the storage cannot be read, say so once and try again at the next time."""
    failed = False
    while not over.wait(REFRESH_EVERY_S):
        try:
            copy.refresh()
        except OSError as error:
            if not failed:
                stale = f"{copy.folder.path.name} could not be read ({error}): what is shown is not up to date"
                console.print(f"{stale}; tried again every {REFRESH_EVERY_S:g} s", markup=False)
            failed = True
        else:
            failed = False


def _bind(app: Any, port: int) -> Any:
    """Bind to loopback only, because the dashboard has no password."""
    try:
        return make_server("127.0.0.1", port, app, server_class=_Server, handler_class=_Quiet)
    except OSError:
        return make_server("127.0.0.1", 0, app, server_class=_Server, handler_class=_Quiet)
