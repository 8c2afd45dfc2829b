"""Weights in and out: what a trial came to, for others to load; what others have trained, for a trial to start from."""

from __future__ import annotations

from typing import Any

from trials.compact import Architecture
from trials.errors import DamagedFile, UserError
from trials.storage.place import Place
from trials.storage.trial_folder import TrialFolder
from trials.training.net import Net


def network(trial: Place) -> tuple[Architecture, Net]:
    """The network a trial has come to, on the CPU, made smaller as it was, and what it is built from.

    Raises:
        UserError: the folder holds no trial with a checkpoint, or one of a version that did not say what it is of.
    """
    content = checkpoint(trial)
    if "architecture" not in content:
        raise UserError(f"{str(trial)!r} was committed by an older version, which kept no architecture: run it again")
    architecture = Architecture.of(content["architecture"])
    net = Net(architecture.build())
    net.load_state_dict(content["net"])
    return architecture, net


def network_of(trial: Place) -> dict[str, Any]:
    """The state of the network a trial has come to: ``model``, ``masks``, ``snapshots``. Raises as ``checkpoint``."""
    return dict(checkpoint(trial)["net"])


def last_commit(trial: Place) -> tuple[str | None, dict[str, Any]]:
    """The status of the trial in a folder (None where there is none) and its last checkpoint, empty without a commit.

    Raises:
        DamagedFile: one of them cannot be read.
    """
    folder = TrialFolder(trial)
    state = folder.state()
    content = folder.checkpoint(state.commits[-1]) if state is not None and state.commits else {}
    return (None if state is None else state.status), content


def checkpoint(trial: Place) -> dict[str, Any]:
    """A trial's last checkpoint.

    Raises:
        UserError: the folder holds none.
    """
    try:
        _, content = last_commit(trial)
    except DamagedFile as damage:
        raise UserError(f"{damage}: run the trial again, it repairs what can be repaired") from None
    if not content:
        raise UserError(f"{str(trial)!r} must be the folder of a trial that has committed a checkpoint, but has none")
    return content
