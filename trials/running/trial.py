"""Run one trial: build the network, load what it starts from, run the stages, commit. Resumes from the last commit."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from trials.config.figure_names import require_reports
from trials.config.source_config import HasSource
from trials.config.trial_config import TrialConfig
from trials.data import Loader, Source, load_data
from trials.errors import (
    DEAD_DEVICE,
    OUT_OF_MEMORY,
    DataError,
    DeadDevice,
    Preempted,
    Pruned,
    StorageError,
    Superseded,
    TimeLimit,
    as_unicode,
)
from trials.methods import Method, Stage, segments
from trials.methods.dense import copied, copies_shared
from trials.methods.registry import METHODS
from trials.methods.starting import load_source
from trials.running.environment import device_name, environment_of, other_code
from trials.running.inherited_checkpoint import inherited
from trials.running.own_time import OwnTime
from trials.running.progress import Progress, TrialHost
from trials.running.shared_trials import Obtained, folder_in, obtain, require_same_config, shared_name
from trials.running.stage_run import StageRun
from trials.seeding import derive_seed
from trials.storage.committed_files import rows_in
from trials.storage.place import Place
from trials.storage.trial_folder import Attempt, State, TrialFolder
from trials.training.arithmetic import arithmetic_of
from trials.training.build import build_loader, build_net
from trials.training.device import is_dead, lacks_memory, release_memory, resolve_device
from trials.training.net import Net
from trials.training.network_copy import forget
from trials.training.stage_context import StageContext

__all__ = ["TrialHost", "run", "source_name"]


def run(config: TrialConfig, folder: Place, trial_host: TrialHost) -> State:
    """Run a trial in its folder, continuing from its last commit, and return its final state.

    A finished trial is not run again; its state is returned. A failure is committed (type, message, traceback) and
    returned, not raised. If its type is ``DEAD_DEVICE``, no trial can run in this process any more.

    While the storage errs, the trial waits (:mod:`trials.storage.outages`).

    Raises:
        Superseded: a later attempt took the trial over.
        StorageError: the storage has erred for too long; the trial goes on from its last commit when it is run again.
        KeyboardInterrupt: the attempt is committed as preempted first.
    """
    with trial_host.patience().active():
        return _run(config, TrialFolder(folder), trial_host)


def _run(config: TrialConfig, trial_folder: TrialFolder, trial_host: TrialHost) -> State:
    device = resolve_device(config.device)
    try:
        torch.set_num_threads(trial_host.threads)
        where = environment_of(config, device, trial_host.threads, trial_host.commit)
        begun: dict[str, Any] = {"host": socket.gethostname(), "device": device_name(device), "environment": where}
        new, lines = trial_folder.is_new(), list[str]()
        if not new:
            lines = trial_folder.verify(checkpoint=True)
            state = trial_folder.state()
            if state is not None and state.finished:
                return state
        attempt, checkpoint = trial_folder.begin(**begun, new=new)
    except Preempted:  # asked to stop while the storage erred
        return _known_state(trial_folder)
    for line in (*lines, *attempt.warnings):
        trial_host.warn(line)
    own_time = OwnTime(attempt.state, trial_host.limit_s)
    try:
        own_time.require()
        with arithmetic_of(config, device):
            _Run(config, attempt, checkpoint, trial_host, device, own_time).go()
    except Pruned:
        pass
    except Preempted:
        _stopped(attempt, own_time)
    except KeyboardInterrupt:
        _end(attempt, "preempted")
        raise
    except (Superseded, StorageError):
        raise
    except Exception as error:  # noqa: BLE001  any failure of a trial is a result: committed and reported to the driver
        _fail(attempt, trial_host, own_time, error, device)
    finally:
        _release(attempt.state, device)
    return attempt.state


def _known_state(trial_folder: TrialFolder) -> State:
    """The state of a trial whose attempt has not begun, if the storage can be read."""
    with suppress(Preempted, StorageError):
        state = trial_folder.state()
        if state is not None:
            return state
    return State(status="preempted")


def _release(state: State, device: torch.device) -> None:
    """Free the memory of an attempt that has ended, unless its device is dead."""
    if state.error is None:
        release_memory(device, failed=False)
    elif state.error["type"] != DEAD_DEVICE:
        forget()
        release_memory(device, failed=True)


def _end(attempt: Attempt, status: str, **fields: Any) -> None:
    """Commit the attempt's final status; skipped if the storage errs until the trial is asked to stop."""
    with suppress(Preempted):
        attempt.end(status, **fields)


def _stopped(attempt: Attempt, own_time: OwnTime) -> None:
    """Commit the end of an attempt that has stopped where it was asked to, or where its trial's time was over."""
    try:
        own_time.require()
    except TimeLimit as error:
        _end(attempt, "failed", error=_error_record(error), failures=attempt.state.failures + 1)
    else:
        _end(attempt, "preempted")


def _fail(attempt: Attempt, trial_host: TrialHost, own_time: OwnTime, error: Exception, device: torch.device) -> None:
    """Commit a failure. It is not counted if other trials crowded the device, or if the device is dead.

    Of a trial that is asked to stop, an error is no failure: the signal may have ended what the trial was using, as
    processes that load its data. It goes on from its last commit, where an error of its own comes again.
    """
    if not isinstance(error, DeadDevice) and not is_dead(device) and trial_host.should_stop():
        trial_host.warn(f"{type(error).__name__} after it was asked to stop ({error}): it goes on from its last commit")
        _stopped(attempt, own_time)
        return
    record = _error_record(error)
    if isinstance(error, DeadDevice):
        record |= {"culprit": error.culprit, **error.where}
    elif is_dead(device):
        said = f"{record['type']}: {record['message']}"
        record["message"] = f"its process can no longer use {attempt.state.device or device} after {said}"
        record["type"] = DEAD_DEVICE
    uncounted = record["type"] == DEAD_DEVICE or (record["type"] == OUT_OF_MEMORY and not trial_host.alone)
    failures = attempt.state.failures + (not uncounted)
    _end(attempt, "failed", error=record, failures=failures)


def _error_record(error: Exception) -> dict[str, str]:
    if isinstance(error, DeadDevice):
        name = DEAD_DEVICE
    else:
        name = OUT_OF_MEMORY if lacks_memory(error) else type(error).__name__
    return {"type": name, "message": as_unicode(str(error)), "traceback": as_unicode(traceback.format_exc())}


def _ended_within_a_stage(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is that of a pruned trial, which holds nothing for its stage to go on with."""
    resumed = checkpoint.get("position", {})
    return "epoch" in resumed and "method" not in checkpoint


class _Run:
    """One attempt at a trial.

    Attributes:
        copies_shared: whether this is a sweep's dense trial (not a segment), which only copies the shared trial of its
            config.
    """

    def __init__(
        self,
        config: TrialConfig,
        attempt: Attempt,
        checkpoint: dict[str, Any],
        trial_host: TrialHost,
        device: torch.device,
        own_time: OwnTime,
    ) -> None:
        self.config, self.checkpoint, self.device, self.own_time = config, checkpoint, device, own_time
        stops = replace(trial_host, should_stop=lambda: own_time.over or trial_host.should_stop())
        self.trial_host, self._of_shared = trial_host if own_time.limit_s is None else stops, trial_host
        self.siblings = attempt.folder.path.parent
        self.precision = str(attempt.state.environments[-1]["precision"])
        self.method: Method = METHODS[config.method](config)
        require_reports(self.method.reports, config)
        self.raw: Source = load_data(*config.data_key)
        if trial_host.data not in (None, self.raw.fingerprint):
            raise DataError(
                f"{config.dataset} has fingerprint {self.raw.fingerprint} on {socket.gethostname()}, but the sweep's "
                f"driver found {trial_host.data}: give every machine the same data"
            )
        self.data: Loader = build_loader(config, self.raw, device)
        self.copies_shared = copies_shared(config) and self.siblings != trial_host.stages
        if _ended_within_a_stage(self.checkpoint):
            trial_host.warn("its state is lost, and its search had ended it within a stage: it starts anew")
            self.checkpoint = {}
            attempt.state = replace(attempt.state, commits=(), progress={})
        if not self.checkpoint:
            self._inherit(attempt)
        from_scratch = not self.checkpoint and self._source() is None and not self._starts_from_file()
        values = from_scratch or self.method.reads_initial_values
        self.net: Net = build_net(config, self.raw, device, values)
        self.progress = Progress(config, attempt, self.trial_host, self.method, self.raw, self.data, self.net, own_time)

    def go(self) -> None:
        """Run the remaining stages; complete the trial at once if none remain."""
        self.method.initialised(self.net)
        stages = [] if self.copies_shared else segments.reached(self.config, list(self.method.stages()))
        first = 0
        if self.checkpoint:
            first = self._continue()
        else:
            self._load_source()
        for position in range(first, len(stages)):
            self._run_stage(stages[position], position, last=position == len(stages) - 1)
        if not stages or first == len(stages):
            self.progress.complete({"stage": len(stages)})

    def _inherit(self, attempt: Attempt) -> None:
        """Take the checkpoint of the nearest ancestor in a population, if there is one."""
        found = inherited(self.config, self.siblings)
        if found is not None:
            ancestor, self.checkpoint = found
            attempt.builds_on(ancestor)

    def _run_stage(self, stage: Stage, position: int, last: bool) -> None:
        by_itself = self.config.report is None and stage.selects
        selects = by_itself or (self.config.reported == "best_val" and self._ends_level(stage))
        StageRun(self.progress, stage, position, self.checkpoint, selects).run(self._context(stage), last)

    def _ends_level(self, stage: Stage) -> bool:
        """Whether the stage trains, and is the last one of its level, or of the trial."""
        last = [other.key for other in self.method.stages() if other.level == stage.level][-1]
        return bool(stage.streams) and stage.key == last

    def _source(self) -> TrialConfig | None:
        """The shared trial from whose network this one starts."""
        return copied(self.config) if self.copies_shared else self.method.source()

    def _continue(self) -> int:
        self.progress.rows.update(rows_in(self.checkpoint))
        self._refuse_other_data(self.checkpoint)
        self.net.load_state_dict(self.checkpoint["net"])
        self.progress.cost.load_state_dict(self.checkpoint.get("cost"))
        return int(self.checkpoint["position"]["stage"])

    def _refuse_other_data(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["data"] != self.raw.fingerprint:
            raise DataError(
                f"{self.config.dataset} has fingerprint {self.raw.fingerprint}, but the trial began on "
                f"{checkpoint['data']}: give it the data it began on, or another storage"
            )

    def _starts_from_file(self) -> bool:
        return isinstance(self.config, HasSource) and self.config.source_net is not None

    def _load_source(self) -> None:
        source = self._source()
        if source is None:
            load_source(self.net, self.method, self.trial_host.warn)
            if self._starts_from_file():
                self.progress.cost.dense = None  # nobody counted what the weights of a file have cost
            return
        name, found = self._obtain(source, self._of_shared)
        if self.copies_shared and not self.config.measure_latency:
            self.progress.attempt.copies(found.state)
        self.net.load_state_dict(found.checkpoint["net"])
        self.progress.cost.starts_from(source.method == "dense", found.checkpoint.get("cost"))
        for table, content in found.rows.items():
            self.progress.rows[table] = [{**row, "stage_id": row.get("stage_id") or name} for row in content]
        for row in self.progress.rows["epochs"]:  # those of earlier versions do not say it
            row.setdefault("report", "last" if row["stage"] == "pretrain" else source.reported)

    def _obtain(self, source: TrialConfig, trial_host: TrialHost) -> tuple[str, Obtained]:
        """Return a shared trial and its folder's name; its environments count among this trial's."""
        folder = folder_in(self.trial_host.stages, source_name(source, self.raw), source, self.precision)
        for line in require_same_config(folder, source):
            trial_host.warn(line)
        shared_host = replace(trial_host, limit_s=None)  # all trials that start from it depend on it
        with self.own_time.paused():
            found = obtain(folder, lambda: run(source, folder.path, shared_host), trial_host.should_stop)
        self._refuse_other_data(found.checkpoint)
        for changed in other_code(source, found.state.computed_in):
            trial_host.warn(
                f"{folder.path.name}, which it starts from, was computed with other code ({changed}): if that computes "
                "something else now, raise its revision, or give another storage"
            )
        self.progress.attempt.builds_on(found.state)
        return folder.path.name, found

    def _context(self, stage: Stage) -> StageContext:
        seed, mapping = derive_seed(self.config.seed, stage.key), self.trial_host.mapping()
        return StageContext(self.data, self.progress.rows, mapping, seed, self._network)

    def _network(self, name: str) -> Net:
        """Return another trained network, in evaluation mode; its rows are not added to this trial's."""
        source = self.method.references()[name]
        _, found = self._obtain(source, replace(self._of_shared, report=lambda row: None))
        self.progress.cost.also_dense(found.checkpoint.get("cost"))
        net = build_net(source, self.raw, self.device, False)
        net.load_state_dict(found.checkpoint["net"])
        net.model.eval()
        return net


def source_name(source: TrialConfig, raw: Source) -> str:
    """Folder name of a shared trial that is trained on the data ``raw``, without the precision that auto became."""
    return shared_name(source.id, raw.fingerprint)
