"""What the trials of some cells say beside the space's template (``cases:``), as a grid over methods needs it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.space.grid import conditions
from sweeper.space.grid.conditions import When, holds
from sweeper.space.values import Scalar, mapping
from trials.dotted_paths import merge
from trials.errors import UserError, shown, unknown_name


@dataclass(frozen=True)
class Case:
    """Fields of a trial, for the cells that have certain grid values."""

    when: When
    trial: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """As a space file says it."""
        return {"when": conditions.document(self.when), "trial": self.trial}


def read_cases(content: object) -> dict[str, Case]:
    """``{NAME: {when: {method: bip}, trial: {prune: {epochs: 10}}}}``; null takes one of them away.

    Raises:
        UserError: one of them says something else.
    """
    if content is None:
        return {}
    example = "{when: {method: bip}, trial: {prune: {epochs: 10}}}"
    if not isinstance(content, Mapping):
        raise UserError(f"cases is {shown(content)}, but must be a mapping of names to cases such as {example}")
    return {name: _read_case(case, f"cases.{name}", example) for name, case in content.items() if case is not None}


def _read_case(content: object, where: str, example: str) -> Case:
    if isinstance(content, Case):
        return content
    if not isinstance(content, Mapping):
        raise UserError(f"{where} is {shown(content)}, but must be a mapping such as {example}")
    for key in content:
        if key not in ("when", "trial"):
            raise UserError(unknown_name(f"{where}: key", key, ("when", "trial")))
    for key in ("when", "trial"):
        if key not in content:
            raise UserError(f"{where}.{key} is missing: write {example}")
    when = conditions.read_when(content["when"], f"{where}.when")
    return Case(when, mapping(content["trial"], f"{where}.trial"))


def template(trial: Mapping[str, Any], cases: Mapping[str, Case], cell: Mapping[str, Scalar]) -> dict[str, Any]:
    """The template of a cell's trials: what holds for all, then every case that holds there, in their order."""
    content = dict(trial)
    for case in cases.values():
        if holds(case.when, cell):
            content = merge(content, case.trial)
    return copy.deepcopy(content)
