"""A space's ``callbacks`` as callbacks of Tune that see trials as a sweep has them, and cannot stop it.

Tune's trials are attempts, its config is an assignment, and its results are any messages of a worker. A callback is
told of a trial's own id and config instead, and of a result for each epoch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from sweeper.space.options.callbacks import CALLBACKS, RayLogger, TrialCallback
from trials.dotted_paths import leaves
from trials.errors import UserError, one_line
from trials.plugins.blaming import blaming
from trials.storage.place import Place

_OF_TUNE = ("time_this_iter_s", "time_total_s", "timestamp", "date", "pid", "hostname", "node_ip")
"""Keys of Tune's results that its loggers expect, beside ``training_iteration`` and ``config``."""


def make_callbacks(asked: Sequence[TrialCallback], sweep: Place, note: Callable[[str], None]) -> list[Guarded]:
    """Make a space's callbacks, and set them up.

    Args:
        sweep: the sweep's folder, in which their files lie by default.
        note: is told once if one of them fails later.

    Raises:
        UserError: one of them cannot be made or set up, or is no ``ray.tune.Callback``.
    """
    made = []
    for one in asked:
        guarded = Guarded(_made(one), one.name, _folder(one, sweep), sweep.name, note)
        with blaming(f"callbacks has {one.name!r}, which cannot be set up"):
            guarded.begin()
        made.append(guarded)
    return made


def _made(asked: TrialCallback) -> tune.Callback:
    kind = CALLBACKS.require(asked.name, "callbacks")
    with blaming(f"callbacks has {asked.name!r}, which cannot be made"):
        if isinstance(kind, RayLogger):
            kind = getattr(importlib.import_module(kind.module), kind.attribute)
        options = {"resume": "allow"} if asked.name == "wandb" else {}  # a trial that goes on is the same run
        found = kind(**{**options, **asked.arguments})
    if not isinstance(found, tune.Callback):
        raise UserError(
            f"callbacks has {asked.name!r}, which made {type(found).__name__}, but must make a ray.tune.Callback: "
            "derive its class from it"
        )
    return found


def _folder(asked: TrialCallback, sweep: Place) -> Path:
    if asked.folder is not None:
        return Path(asked.folder).expanduser().absolute() / sweep.name
    if not isinstance(sweep, Path):
        raise UserError(
            f"callbacks has {asked.name!r}, which may write files on this machine, but the sweep lies in {sweep}: give "
            f"{{name: {asked.name}, folder: PATH}}"
        )
    return sweep / "logs" / asked.name.replace(":", ".")


class Followed:
    """A trial as callbacks see it: Tune's trial, with the sweep's own id, config and a folder that stays.

    Attributes:
        config: the trial's config as JSON, defaults included.
        evaluated_params: its fields by dotted path, without those that are null or lists.
        local_path: its folder for files of the callback.
    """

    def __init__(self, trial: Any, folder: Path, sweep: str) -> None:
        message = trial.config
        self._trial = trial
        self.trial_id = str(message["trial"])
        self.config: dict[str, Any] = message["config"]
        self.evaluated_params = {
            path: value for path, value in leaves(self.config) if isinstance(value, str | int | float)
        }
        self.experiment_dir_name = self.experiment_tag = sweep
        self.local_path = str(folder / self.trial_id)

    def init_local_path(self) -> None:
        """Make its folder."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self.trial_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)


class Guarded(tune.Callback):  # type: ignore[misc]  # Ray is not typed
    """Hands Tune's events to a callback, translated; one that raises is told of nothing any more.

    A sweep goes on without it: what it would have logged stands in the tables too.
    """

    def __init__(
        self, callback: tune.Callback, name: str, folder: Path, sweep: str, note: Callable[[str], None]
    ) -> None:
        self.callback, self.name, self.folder, self.sweep, self.note = callback, name, folder, sweep, note
        self.failed = False
        self._followed: dict[str, Followed] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks at the start

    def begin(self) -> None:
        """Set the callback up; Tune would do it for each Tuner."""
        self.callback.setup(stop=None, num_samples=-1, total_num_samples=-1)

    def end(self) -> None:
        """Tell it that the run is over."""
        self._tell("on_experiment_end", trials=list(self._followed.values()))

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        self._tell("on_step_begin", iteration=iteration, trials=list(self._followed.values()))

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        self._tell("on_step_end", iteration=iteration, trials=list(self._followed.values()))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._followed[trial.trial_id] = Followed(trial, self.folder, self.sweep)
        self._tell("on_trial_start", trial, iteration=iteration)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        followed = self._followed.get(trial.trial_id)
        row: dict[str, Any] | None = result.get("row")
        if followed is None or row is None:
            return
        known = {key: result[key] for key in _OF_TUNE if key in result}
        own = {"trial_id": followed.trial_id, "config": followed.config, "done": False}
        self._tell("on_trial_result", trial, iteration=iteration, result={**known, **row, **own})

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._tell("on_trial_complete", trial, iteration=iteration)
        self._followed.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._tell("on_trial_error", trial, iteration=iteration)
        self._followed.pop(trial.trial_id, None)

    def _tell(self, event: str, trial: Any = None, **details: Any) -> None:
        if self.failed:
            return
        if trial is not None:
            followed = self._followed.get(trial.trial_id)
            if followed is None:
                return
            details |= {"trial": followed, "trials": list(self._followed.values())}
        try:
            getattr(self.callback, event)(**details)
        except Exception as error:  # noqa: BLE001  whatever the callback's code raises
            self.failed = True
            said = one_line(" ".join(f"{type(error).__name__}: {error}".split()))
            self.note(
                f"the callback {self.name} failed in {event} ({said}): it is told of nothing more in this run, and the "
                "sweep goes on"
            )
