"""Ray workers whose device dies on one machine, as a card does after a sticky CUDA error; they run on CPU.

Ray calls :func:`sicken` in every worker process as it starts. From the first epoch on, each call on the device fails.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from sweeper.search.sick_machines import IN_A_ROW

SICK, LOG = "TEST_SICK_NODES", "TEST_SICK_LOG"
"""Environment variables of the workers: a file with the ids of the sick machines, and a log of the epochs begun."""


def sicken() -> None:
    import ray

    from trials.running.stage_run import StageRun
    from trials.training import device

    dead = False
    touch, train_epoch = device.touch, StageRun.train_epoch

    def use(asked: Any) -> None:
        if dead:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        touch(asked)

    def train(self: Any, *arguments: Any) -> Any:
        nonlocal dead
        node = ray.get_runtime_context().get_node_id()
        sick = Path(os.environ[SICK]).read_text()
        while node not in sick and 0 < Path(os.environ[LOG]).read_text().count(f"{sick} ") < IN_A_ROW:
            time.sleep(0.1)  # so that the sick machine is asked often enough, however fast the others are
        with Path(os.environ[LOG]).open("a") as log:
            log.write(f"{node} {os.getpid()}\n")
        dead = dead or node in sick
        use(self.progress.device)
        return train_epoch(self, *arguments)

    device.touch, StageRun.train_epoch = use, train  # type: ignore[method-assign]


class SickCards:
    """Says which machines are sick, and which began an epoch, in which processes."""

    def __init__(self, folder: Path) -> None:
        self.sick, self.log = folder / "sick", folder / "log"
        self.sick.touch()
        self.log.touch()

    def options(self) -> dict[str, Any]:
        """Ray's runtime environment for the driver."""
        variables = {SICK: str(self.sick), LOG: str(self.log)}
        return {"worker_process_setup_hook": f"{__name__}.sicken", "env_vars": variables}

    def epochs_on(self, node: str) -> list[str]:
        """The process of each epoch that was begun on a machine."""
        found = (line.split() for line in self.log.read_text().splitlines())
        return [process for where, process in found if where == node]
