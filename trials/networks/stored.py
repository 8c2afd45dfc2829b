"""Read the network that a trial has committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trials.compact import Architecture, slices, spread
from trials.errors import DamagedFile, UserError
from trials.storage.config_file import read_config
from trials.storage.place import Place
from trials.storage.read_once import SOURCES
from trials.storage.trial_folder import TrialFolder
from trials.storage.trial_state import DROPPED
from trials.training.net import Net


def network(trial: Place) -> tuple[Architecture, Net]:
    """Return a trial's architecture and its last committed network, on the CPU, compact if it was.

    Raises:
        UserError: the folder holds no trial with a checkpoint, or one of an older version without an architecture.
    """
    content = checkpoint(trial)
    architecture = architecture_in(trial, content)
    net = Net(architecture.build(values=False))
    with naming_shapes(trial):
        net.load_state_dict(content["net"])
    return architecture, net


@contextmanager
def naming_shapes(trial: Place) -> Iterator[None]:
    """Say of weights that do not fit the network of their config that the network is another one now.

    Raises:
        UserError: they do not fit.
    """
    try:
        yield
    except (RuntimeError, KeyError) as error:
        first = " ".join(str(error).split())[:300]
        raise UserError(
            f"{trial.name} cannot be loaded, since its code builds another network now than the one that was trained: "
            f"restore the code, or run the trial again with another revision ({first})"
        ) from None


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
        config = read_config(trial).config
        by, data = config.get("normalise", "dataset"), config["dataset"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DamagedFile):
        return ""  # a folder without it, as a test's or an older version's
    if by == "none":
        return "pixels scaled to 0..1, not normalised"
    return f"pixels scaled to 0..1, normalised by {'ImageNet' if by == 'imagenet' else data}'s mean and deviation"


def switches_of(trial: Place) -> dict[str, bool]:
    """What a trial's config says of torch's switches, by field: ``tf32`` and ``deterministic``; defaults if unknown."""
    try:
        config = read_config(trial).config
        return {name: config.get(name) is True for name in ("tf32", "deterministic")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DamagedFile):
        return {}


def whole_model(trial: Place, content: Mapping[str, Any]) -> nn.Module | None:
    """The dense model, for its shapes, that a checkpoint's compact network was made from; None if it is not compact."""
    return architecture_in(trial, content).build(values=False) if content["net"].get("kept") else None


def whole_masks(trial: Place, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The masks in a trial's checkpoint in the shapes of the whole model, bool, by weight name, in module order.

    They are False for what a compact network lacks, so layers that it has cut have one too.
    """
    masks: dict[str, Tensor] = dict(content["net"]["masks"])
    model = whole_model(trial, content)
    if model is None:
        return masks
    cut, state = slices(model, content["net"]["kept"]), content["net"]["model"]
    layers = [f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    there = {name: torch.ones_like(state[name], dtype=torch.bool) for name in layers if name in cut} | masks
    shapes = {name: model.get_parameter(name).shape for name in layers if name in there}
    return {name: spread(there[name], shape, cut.get(name, {})) for name, shape in shapes.items()}


def status(trial: Place, *, committed: bool = False) -> str | None:
    """Return the status of the trial in a folder; None if there is none.

    Args:
        committed: whether a trial without a committed network counts as none.

    Raises:
        DamagedFile: the state cannot be read.
    """
    state = TrialFolder(trial).state()
    return None if state is None or (committed and not state.commits) else state.status


def last_checkpoint(trial: Place) -> dict[str, Any]:
    """Return the checkpoint of the last commit in a trial's folder; empty without a commit. Read once per process.

    Raises:
        DamagedFile: the state or the checkpoint cannot be read.
    """
    folder = TrialFolder(trial)
    while (state := folder.state()) is not None and state.commits:
        commit = state.commits[-1]
        files = [trial / "checkpoint" / commit.checkpoint] if commit.checkpoint is not None else []
        try:
            return SOURCES.get("checkpoint", files, partial(folder.checkpoint, commit))
        except DamagedFile:
            if folder.state() == state:
                raise
            # the trial has committed meanwhile, and removed what was its last commit
    return {}


def checkpoint(trial: Place) -> dict[str, Any]:
    """Return a trial's last checkpoint.

    Raises:
        UserError: the folder holds none, or it is damaged or cannot be read.
    """
    if trial.is_file():
        raise UserError(f"{str(trial)!r} must be the folder of a trial, but is a file")
    try:
        content = last_checkpoint(trial)
        state = None if content else TrialFolder(trial).state()
    except DamagedFile as damage:
        raise UserError(f"{damage}: run the trial again, it repairs what can be repaired") from None
    except OSError as error:
        raise UserError(f"{str(trial)!r} must be the folder of a trial, but cannot be read ({error})") from None
    if state is not None and state.is_without_checkpoint:
        raise UserError(f"{str(trial)!r} must be the folder of a trial with a checkpoint, but {DROPPED}")
    if not content:
        raise UserError(f"{str(trial)!r} must be the folder of a trial that has committed a checkpoint, but has none")
    return content
