"""Weights & Biases: a run for each trial, which goes on when the sweep is resumed; a failed upload is an error."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.air.integrations.wandb import WandbLoggerCallback, _QueueItem, _WandbLoggingActor

from sweeper.execution.on_ray.trackers.followed import Followed
from trials.storage import files

UPLOAD_S = 45
"""Seconds to wait for uploads at the end of a run of the sweep; what is left stays on disk (``wandb sync``)."""


MOST_TAG = 64
"""Length of a tag (W&B's limit)."""

MOST_ARTIFACT = 128
"""Length of an artifact's name (W&B's limit)."""

ATTACH_S = 3600.0
"""Seconds after which a run's process that has not taken the files of an artifact is given up."""

_TAKEN = "taken"
"""File beside the folder of an artifact: W&B has its own copy of the files."""


class _Process(_WandbLoggingActor):  # type: ignore[misc]  # Ray is not typed
    """The process of a run, as Ray has it; it is sent folders of artifacts where Ray sends checkpoints."""

    def _handle_checkpoint(self, checkpoint_path: str) -> None:
        folder = Path(checkpoint_path)
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", str(self._trial_name))[:MOST_ARTIFACT]
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        made = self._wandb.Artifact(name=name, type="model", metadata={"size_bytes": sizes})
        made.add_dir(str(folder))
        self._wandb.log_artifact(made)
        (folder.parent / _TAKEN).touch()


class WandbRuns(WandbLoggerCallback):  # type: ignore[misc]  # Ray is not typed
    """Ray's callback, with its options; the project is the sweep by default.

    Ray's own takes the trial's name as the run's id, so that equal trials of two sweeps were one run, and does not look
    at what its processes raise.
    """

    _logger_actor_cls = _Process
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
        own = {
            "id": trial.run_id,
            "group": self.group or trial.group,
            "job_type": trial.point.role,
            "config": {**options["config"], "cell": trial.cell, "point": trial.point.name},
        }
        tags = {"tags": [*(tag[:MOST_TAG] for tag in trial.tags), *(self.kwargs.get("tags") or ())]}
        super()._start_logging_actor(trial, exclude_results, **{**options, **own, **self.kwargs, **tags})

    def attach(self, trial: Followed, folder: Path, sizes: Mapping[str, int]) -> None:
        """Log an artifact of type ``model``, and wait until W&B has copied its files; it uploads them later."""
        self._trial_queues[trial].put((_QueueItem.CHECKPOINT, str(folder)))
        until = time.monotonic() + ATTACH_S
        while not (folder.parent / _TAKEN).exists():
            self._raise_failures()
            if time.monotonic() > until:
                raise TimeoutError(f"W&B has not taken the artifact of {trial} within {ATTACH_S:g} s")
            time.sleep(0.05)

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
