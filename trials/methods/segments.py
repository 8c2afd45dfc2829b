"""A trial whose hyperparameters change on the way: which are in force when, and whose checkpoint it continues.

Such a trial is the last segment of a member of a population (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846).
Its config says the hyperparameters of that segment as any config does; ``lineage`` says those of the segments before,
``until_epoch`` where the last one ends. All segments lie in the method's first stage. Its parent is the trial of the
same lineage without the last segment, found by its name beside it. What it comes to is the same whether it continues a
parent's checkpoint or, where there is none, computes the whole lineage itself.
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
    """The stage that segments divide."""
    return next(METHODS[config.method](config).stages())


def epochs(config: TrialConfig) -> int:
    """How many epochs there are to divide into segments.

    Raises:
        UserError: the first stage says itself when it is finished.
    """
    stage = first_stage(config)
    if not math.isfinite(stage.epochs):
        raise UserError(
            f"until_epoch and pbt divide the epochs of the first stage, but {stage.name} of {config.method} says "
            "itself when it is finished: remove them"
        )
    return int(stage.epochs)


def check_segments(config: TrialConfig) -> None:
    """Refuse segments that do not follow each other within the first stage, or change what is fixed.

    Raises:
        UserError: so they do.
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
    """Refuse hyperparameters that the method does not let change in mid-flight.

    Raises:
        UserError: one of ``paths`` is such.
    """
    mutable = METHODS[method].mutable
    for path in paths:
        if path not in mutable:
            may = f"only {', '.join(sorted(mutable))} may change" if mutable else "none of its hyperparameters may"
            raise UserError(f"{where} has {path}, which is fixed once a trial of {method} has begun: {may}")


def child(config: TrialConfig, values: Mapping[str, Any], until_epoch: int) -> TrialConfig:
    """The trial that goes on from this one, under new values of some hyperparameters; the others stay as they are.

    Raises:
        UserError: there is no such trial.
    """
    content = config.model_dump(mode="json")
    own = {"until_epoch": config.until_epoch, "values": {path: get_at(content, path) for path in values}}
    refuse_fixed(config.method, values, "a segment")
    following = _with(config, values, lineage=[*content["lineage"], own], until_epoch=until_epoch)
    _check_ends(following)
    return following


def _with(config: TrialConfig, values: Mapping[str, Any], **fields: Any) -> TrialConfig:
    """``config`` with other values at dotted paths, and other ``fields``; segments are not looked into."""
    content = config.model_dump(mode="json")
    for path, value in values.items():
        set_at(content, path, value)
    changed: TrialConfig = validate(type(config), {**content, **fields}, "")
    return changed


def _in_segment(config: TrialConfig, segment: Segment) -> TrialConfig:
    """``config`` under the hyperparameters of one of its segments, without a history."""
    return _with(config, segment.values, lineage=[], until_epoch=None)


def config_at(config: TrialConfig, epoch: int) -> TrialConfig:
    """The config whose hyperparameters are in force in an epoch (0-based) of the first stage."""
    for segment in config.lineage:
        if epoch < segment.until_epoch:
            return _in_segment(config, segment)
    return config


def reached(config: TrialConfig, stages: list[Stage]) -> list[Stage]:
    """Those of its method's stages that the trial comes to: none after the first where it ends within that."""
    return stages if config.until_epoch is None or config.until_epoch == stages[0].epochs else stages[:1]


def planned_epochs(config: TrialConfig) -> int:
    """How many epochs the trial is sure to train itself: without those of the segments that it continues."""
    stages = reached(config, list(METHODS[config.method](config).stages()))
    each = [stage.planned_epochs for stage in stages]
    if config.until_epoch is not None:
        each[0] = config.until_epoch - max((segment.until_epoch for segment in config.lineage), default=0)
    return sum(each)


def changed(stage: Stage, config: TrialConfig, net: Net, epoch: int) -> Stage:
    """The first stage for an epoch (0-based): itself, or one that goes on from it under the next hyperparameters."""
    if all(epoch != segment.until_epoch for segment in config.lineage):
        return stage
    following = first_stage(config_at(config, epoch))
    following.attach(net)
    following.load_state_dict(stage.state_dict())
    return following


def ancestors(config: TrialConfig) -> Iterator[TrialConfig]:
    """The trials whose checkpoint this one can continue, the parent first."""
    while config.lineage:
        *earlier, last = config.model_dump(mode="json")["lineage"]
        config = _with(config, last["values"], lineage=earlier, until_epoch=last["until_epoch"])
        yield config
