"""TensorBoard: event files in a folder for each trial; a row is one event, which is on disk before the next one comes.

Ray's own callback writes an event for each figure through a queue, which a killed driver loses up to 30 seconds of.
"""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Any

from ray.tune.logger import LoggerCallback
from ray.tune.utils import flatten_dict

from sweeper.execution.on_ray.trackers.followed import Followed, numbers_in
from trials.storage.leases.owner import new_token

_NOT_LOGGED = ("config", "done", "pid", "timestamp", "time_total_s", "training_iteration")


MOST_NAME_BYTES = 200
"""Length of a folder's name."""


class TensorBoardRuns(LoggerCallback):  # type: ignore[misc]  # Ray is not typed
    """Writes scalars ``ray/tune/NAME``, as Ray's callback does, and the hyperparameters with the last row at the end.

    The file of a resumed trial says from which step on it replaces what was written before: half a row, or one twice.
    """

    def __init__(self) -> None:
        import tensorboardX.event_file_writer

        self._writer_of = tensorboardX.event_file_writer.EventsWriter
        self._writers: dict[str, Any] = {}
        self._last: dict[str, dict[str, float]] = {}

    def log_trial_start(self, trial: Followed) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._place(trial)
        trial.init_local_path()
        writer = self._writer_of(str(Path(trial.local_path) / "events"), f".{new_token()}")
        self._writers[trial.trial_id] = writer
        if trial.resumed:
            log = SessionLog(status=SessionLog.START)
            writer.write_event(Event(wall_time=time.time(), step=trial.rows + 1, session_log=log))

    def _place(self, trial: Followed) -> None:
        """Let the folders of a point's trials stand in one folder, as TensorBoard groups and filters runs by folder."""
        own = Path(trial.local_path)
        if trial.grouped and trial.point.name and not own.exists():
            trial.local_path = str(own.parent / folder_name(trial.point.name) / own.name)

    def log_trial_result(self, iteration: int, trial: Followed, result: dict[str, Any]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        rest = {key: value for key, value in result.items() if key not in _NOT_LOGGED}
        own = {key: value for key, value in flatten_dict(rest, delimiter="/").items() if not isinstance(value, bool)}
        figures = {f"ray/tune/{key}": value for key, value in numbers_in(own).items()}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
        event = Event(wall_time=time.time(), step=result["training_iteration"], summary=Summary(value=values))
        self._writers[trial.trial_id].write_event(event)
        self._writers[trial.trial_id].flush()
        self._last[trial.trial_id] = figures

    def log_trial_end(self, trial: Followed, failed: bool = False) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import hparams

        writer, last = self._writers.pop(trial.trial_id), self._last.pop(trial.trial_id, {})
        if last and trial.status != "PAUSED":
            for summary in hparams(hparam_dict=trial.evaluated_params, metric_dict=last):
                writer.write_event(Event(wall_time=time.time(), summary=summary))
        writer.close()


def folder_name(point: str) -> str:
    """A point's name as that of a folder."""
    name = re.sub(r"[^\w=.,+# -]", "_", point).strip(" .")
    if len(name.encode()) <= MOST_NAME_BYTES:
        return name
    digest = hashlib.sha256(point.encode()).hexdigest()[:8]
    return f"{name.encode()[: MOST_NAME_BYTES - 9].decode(errors='ignore')}-{digest}"
