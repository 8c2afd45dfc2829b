"""Read the network that a trial has committed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trials.compact import Architecture
from trials.errors import DamagedFile, UserError
from trials.storage.place import Place
from trials.storage.trial_folder import TrialFolder
from trials.training.net import Net


def network(trial: Place) -> tuple[Architecture, Net]:
    """Return a trial's architecture and its last committed network, on the CPU, compact if it was.

    Raises:
        UserError: the folder holds no trial with a checkpoint, or one of an older version without an architecture.
    """
    content = checkpoint(trial)
    architecture = architecture_in(trial, content)
    net = Net(architecture.build())
    net.load_state_dict(content["net"])
    return architecture, net


def architecture_in(trial: Place, content: Mapping[str, Any]) -> Architecture:
    """Return the architecture in a trial's checkpoint.

    Raises:
        UserError: an older version wrote the checkpoint, without an architecture.
    """
    if "architecture" not in content:
        raise UserError(f"{str(trial)!r} was committed by an older version without an architecture: run it again")
    return Architecture.of(content["architecture"])


def network_of(trial: Place) -> dict[str, Any]:
    """Return the state of a trial's last committed network: ``model``, ``masks``, ``snapshots``, ...

    Raises:
        UserError: the folder holds no checkpoint.
    """
    return dict(checkpoint(trial)["net"])


def inputs_of(trial: Place) -> str:
    """What a trial's network takes as inputs: pixels, and how they are normalised; empty if it is unknown."""
    try:
        config = json.loads((trial / "config.json").read_bytes())["config"]
        by, data = config.get("normalise", "dataset"), config["dataset"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""  # a folder without it, as a test's or an older version's
    if by == "none":
        return "pixels scaled to 0..1, not normalised"
    return f"pixels scaled to 0..1, normalised by {'ImageNet' if by == 'imagenet' else data}'s mean and deviation"


def status(trial: Place) -> str | None:
    """Return the status of the trial in a folder; None if there is none.

    Raises:
        DamagedFile: the state cannot be read.
    """
    state = TrialFolder(trial).state()
    return None if state is None else state.status


def last_checkpoint(trial: Place) -> dict[str, Any]:
    """Return the checkpoint of the last commit in a trial's folder; empty without a commit.

    Raises:
        DamagedFile: the state or the checkpoint cannot be read.
    """
    folder = TrialFolder(trial)
    state = folder.state()
    return folder.checkpoint(state.commits[-1]) if state is not None and state.commits else {}


def checkpoint(trial: Place) -> dict[str, Any]:
    """Return a trial's last checkpoint.

    Raises:
        UserError: the folder holds none, or it is damaged or cannot be read.
    """
    try:
        content = last_checkpoint(trial)
    except DamagedFile as damage:
        raise UserError(f"{damage}: run the trial again, it repairs what can be repaired") from None
    except OSError as error:
        raise UserError(f"{str(trial)!r} must be the folder of a trial, but cannot be read ({error})") from None
    if not content:
        raise UserError(f"{str(trial)!r} must be the folder of a trial that has committed a checkpoint, but has none")
    return content
