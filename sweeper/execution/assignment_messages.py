"""What a worker is sent of an assignment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeper.search.assignment import Assignment
from sweeper.search.plan import Plan
from trials.running.environment import git_commit


def message_of(plan: Plan, assignment: Assignment) -> dict[str, Any]:
    """Return the assignment as JSON, as far as it does not depend on where it runs and who follows it."""
    space, folder = plan.space, plan.folder
    return {
        "trial": assignment.trial_id,
        "cell": assignment.cell,
        "config": _found_from_anywhere(assignment.config.model_dump(mode="json")),
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
