"""The space that compares all methods, in each of its profiles."""

from __future__ import annotations

from typing import Any

from sweeper.space.load import load_space
from sweeper.space.space import Space
from trials.methods.registry import METHODS

PROFILES = (None, "demo", "paper", "tuned")
TUNED = ("demo", "tuned")
LEFT_OUT = {"dense", "finetune", "oracle", "regrow_iterative", "single_layer", "gradient_prune", "dwp"}
COMPARED = METHODS.keys() - LEFT_OUT


def compared(profile: str | None, *overrides: str) -> Space:
    return load_space("compare_methods", profile=profile, overrides=overrides)


def configs(space: Space) -> list[Any]:
    """The config of every trial: at the bounds of a cell's search, with its seed and with those that confirm it."""
    confirmed = space.confirm.points() if space.confirm else []
    return [
        space.config(cell, {**params, **values})
        for cell in space.cells()
        for params in space.corners(cell)
        for values in ({}, *confirmed)
    ]


def of_seed_0(space: Space) -> list[Any]:
    return [config for config in configs(space) if config.seed == 0]
