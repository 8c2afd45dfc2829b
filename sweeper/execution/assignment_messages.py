"""What a worker is sent of an assignment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeper.search.assignment import Assignment
from sweeper.search.plan import Plan
from trials.running.environment import git_commit
from trials.storage.data_used import name_of


class AssignmentMessages:
    """Makes messages of a plan's assignments. Reads the fingerprints of the sweep's data once, from its folder."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._fingerprints = {used.name: used.fingerprint for used in plan.folder.data()}

    def of(self, assignment: Assignment) -> dict[str, Any]:
        """Return the assignment as JSON, as far as it does not depend on where it runs and who follows it."""
        space, folder = self.plan.space, self.plan.folder
        config = _found_from_anywhere(assignment.config.model_dump(mode="json"))
        return {
            "trial": assignment.trial_id,
            "cell": assignment.cell,
            "config": config,
            "data": self._fingerprints.get(name_of(config)),
            "folder": str(folder.trial_folder(assignment.trial_id)),
            "stages": str(folder.stages),
            "stop": str(folder.stop),
            "threads": max(1, int(space.resources.cpu)),
            "judged_by": space.objective if space.pruner else None,
            "commit": git_commit(),
            "limit_s": space.trial_hours and space.trial_hours * 3600,
            "storage_patience_s": space.storage_patience_s,
            "alive_every_s": min(30.0, space.silence_limit_s / 10) if space.silence_limit_s else 30.0,
        }


def _found_from_anywhere(config: dict[str, Any]) -> dict[str, Any]:
    """The config with an absolute ``data_dir``, because a worker has its own working directory."""
    data_dir = config.get("data_dir")
    return config if data_dir is None else {**config, "data_dir": str(Path(data_dir).expanduser().absolute())}
