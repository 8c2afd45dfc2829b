"""Trials whose hyperparameters change between segments, as in population based training.

Such a trial is the last segment of a member of a population (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846).
The fields of its config hold the hyperparameters of that segment, ``lineage`` those of the earlier segments, and
``until_epoch`` the epoch at which the last segment ends. All segments lie in the method's first stage. The parent is
the trial of the same lineage without the last segment; it is found by its name in the same folder of trials. The
result is the same whether the trial continues a parent's checkpoint or, if there is none, computes the whole lineage
itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trials.config.trial_config import Segment, TrialConfig
from trials.dotted_paths import get_at, set_at
from trials.errors import UserError
from trials.frozen import validate
from trials.methods import Stage
from trials.methods.registry import METHODS
from trials.training.net import Net


def first_stage(config: TrialConfig) -> Stage:
    """The stage that is divided into segments: the method's first."""
    return next(METHODS[config.method](config).stages())


def epochs(config: TrialConfig) -> int:
    """Number of epochs of the first stage, which segments divide.

    Raises:
        UserError: the first stage has no fixed number of epochs, or may stop before them.
    """
    stage = first_stage(config)
    patience = getattr(stage.recipe, "patience", None)
    if patience is not None:
        raise UserError(
            f"patience is {patience} in the recipe of {stage.name}, but until_epoch and pbt divide all of its epochs: "
            "leave patience out, or remove them"
        )
    if not math.isfinite(stage.epochs):
        raise UserError(
            f"until_epoch and pbt divide the epochs of the first stage, but {stage.name} of {config.method} has "
            "no fixed number of epochs: remove them"
        )
    return int(stage.epochs)


def check_segments(config: TrialConfig) -> None:
    """Check that segments follow each other within the first stage and change only mutable hyperparameters.

    Raises:
        UserError: they do not, ``until_epoch`` is missing, or the segments name different hyperparameters.
    """
    if config.until_epoch is None:
        if config.lineage:
            raise UserError(f"lineage has {len(config.lineage)} segments, but until_epoch is missing: add it")
        return
    _check_ends(config)
    for segment in config.lineage:
        refuse_fixed(config.method, segment.values, "lineage")
        if segment.values.keys() != config.lineage[0].values.keys():
            raise UserError("lineage has segments with different hyperparameters, but each must name the same ones")
        _in_segment(config, segment)


def _check_ends(config: TrialConfig) -> None:
    most = epochs(config)
    ends = [0, *(segment.until_epoch for segment in config.lineage), config.until_epoch or 0]
    if ends[-1] > most:
        name = first_stage(config).name
        raise UserError(f"until_epoch is {ends[-1]}, but stage {name} has {most} epochs: give at most these")
    for before, end in itertools.pairwise(ends):
        if end <= before:
            raise UserError(f"lineage ends a segment at epoch {end}, but the one before at {before}: put them in order")


def refuse_fixed(method: str, paths: Iterable[str], where: str) -> None:
    """Check that the method lets these hyperparameters change during a trial.

    Raises:
        UserError: one of ``paths`` is not in the method's ``mutable``; the message starts with ``where``.
    """
    mutable = METHODS[method].mutable
    for path in paths:
        if path not in mutable:
            may = f"only {', '.join(sorted(mutable))} may change" if mutable else "none of its hyperparameters may"
            raise UserError(f"{where} has {path}, which is fixed once a trial of {method} has begun: {may}")


def child(config: TrialConfig, values: Mapping[str, Any], until_epoch: int) -> TrialConfig:
    """The trial that continues ``config`` to ``until_epoch`` with new values of some hyperparameters.

    Raises:
        UserError: a hyperparameter may not change, or the epochs are not in order within the first stage.
    """
    content = config.model_dump(mode="json")
    own = {"until_epoch": config.until_epoch, "values": {path: get_at(content, path) for path in values}}
    refuse_fixed(config.method, values, "a segment")
    following = _with(config, values, lineage=[*content["lineage"], own], until_epoch=until_epoch)
    _check_ends(following)
    return following


def _with(config: TrialConfig, values: Mapping[str, Any], **fields: Any) -> TrialConfig:
    """``config`` with new values at dotted paths and new ``fields``. Does not check the segments."""
    content = config.model_dump(mode="json")
    for path, value in values.items():
        set_at(content, path, value)
    changed: TrialConfig = validate(type(config), {**content, **fields}, "")
    return changed


def _in_segment(config: TrialConfig, segment: Segment) -> TrialConfig:
    """``config`` with the hyperparameters of one of its segments, and without segments."""
    return _with(config, segment.values, lineage=[], until_epoch=None)


def config_at(config: TrialConfig, epoch: int) -> TrialConfig:
    """The config with the hyperparameters that apply in an epoch (0-based) of the first stage."""
    for segment in config.lineage:
        if epoch < segment.until_epoch:
            return _in_segment(config, segment)
    return config


def reached(config: TrialConfig, stages: list[Stage]) -> list[Stage]:
    """The stages that the trial runs: only the first if it ends within that one, otherwise all."""
    return stages if config.until_epoch is None or config.until_epoch == stages[0].epochs else stages[:1]


def planned_epochs(config: TrialConfig) -> int:
    """Guaranteed number of epochs that the trial trains itself, without the epochs of earlier segments."""
    stages = reached(config, list(METHODS[config.method](config).stages()))
    each = [stage.planned_epochs for stage in stages]
    if config.until_epoch is not None:
        each[0] = config.until_epoch - max((segment.until_epoch for segment in config.lineage), default=0)
    return sum(each)


def changed(stage: Stage, config: TrialConfig, net: Net, epoch: int) -> Stage:
    """The first stage for an epoch (0-based).

    Where a segment starts at ``epoch``, a new stage with its hyperparameters that continues from the state of
    ``stage``; otherwise ``stage`` itself.
    """
    if all(epoch != segment.until_epoch for segment in config.lineage):
        return stage
    following = first_stage(config_at(config, epoch))
    following.arrive(stage.context)
    following.attach(net)
    following.load_state_dict(stage.state_dict())
    return following


def ancestors(config: TrialConfig) -> Iterator[TrialConfig]:
    """The trials whose checkpoints this one can continue from, parent first."""
    while config.lineage:
        *earlier, last = config.model_dump(mode="json")["lineage"]
        config = _with(config, last["values"], lineage=earlier, until_epoch=last["until_epoch"])
        yield config
