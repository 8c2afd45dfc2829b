"""Weights & Biases: a run for each trial, which goes on when the sweep is resumed; a failed upload is an error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.air.integrations.wandb import WandbLoggerCallback

from sweeper.execution.on_ray.trackers.followed import Followed
from trials.storage import files

UPLOAD_S = 45
"""Seconds to wait for uploads at the end of a run of the sweep; what is left stays on disk (``wandb sync``)."""


class WandbRuns(WandbLoggerCallback):  # type: ignore[misc]  # Ray is not typed
    """Ray's callback, with its options; the project is the sweep by default.

    Ray's own takes the trial's name as the run's id, so that equal trials of two sweeps were one run, and does not look
    at what its processes raise.
    """

    AUTO_CONFIG_KEYS = [*WandbLoggerCallback.AUTO_CONFIG_KEYS, "cell"]  # noqa: RUF012  as Ray has it

    @classmethod
    def of_sweep(cls, sweep: str, folder: Path, options: Mapping[str, Any]) -> WandbRuns:
        """Make it for a sweep."""
        given = {"resume": "allow", "upload_timeout": UPLOAD_S, **options}
        if "WANDB_PROJECT_NAME" not in os.environ:
            given = {"project": os.environ.get("WANDB_PROJECT", sweep), **given}
        if "WANDB_MODE" in os.environ:
            given = {"mode": os.environ["WANDB_MODE"], **given}
        return cls(**given)

    def setup(self, *args: Any, **kwargs: Any) -> None:
        if self.kwargs.get("mode") not in ("offline", "disabled"):  # these need no key
            super().setup(*args, **kwargs)
        settings = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
        self._remote_logger_class = ray.remote(
            num_cpus=0,
            label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
            runtime_env={"env_vars": settings},
        )(self._logger_actor_cls)

    def _start_logging_actor(self, trial: Followed, exclude_results: list[str], **options: Any) -> None:
        trial.init_local_path()
        files.make_folder(Path(trial.local_path) / "wandb")  # W&B's own would be closed to the group
        given = {**options, "id": trial.run_id, "config": {**options["config"], "cell": trial.cell}}
        super()._start_logging_actor(trial, exclude_results, **{**given, **self.kwargs})

    def log_trial_result(self, iteration: int, trial: Followed, result: dict[str, Any]) -> None:
        self._raise_failures()
        super().log_trial_result(iteration, trial, result)

    def _cleanup_logging_actors(self, timeout: int = 0, kill_on_timeout: bool = False) -> None:
        if timeout and self._trial_logging_futures:
            futures = list(self._trial_logging_futures.values())
            ray.wait(futures, num_returns=len(futures), timeout=timeout)
            self._raise_failures()
            timeout = 0
        super()._cleanup_logging_actors(timeout, kill_on_timeout)

    def _raise_failures(self) -> None:
        """Raise what a run's process has raised."""
        futures = list(self._trial_logging_futures.values())
        done, _ = ray.wait(futures, num_returns=len(futures), timeout=0) if futures else ([], [])
        for future in done:
            try:
                ray.get(future)
            except ray.exceptions.RayTaskError as error:
                raise error.cause or error from None
