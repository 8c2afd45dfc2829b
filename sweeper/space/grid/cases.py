"""Cases (``cases:``): changes to the space's template for some cells, e.g. one per method of a grid."""

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
    """Trial fields that apply to the cells with certain grid values."""

    when: When
    trial: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the case in the form of a space file."""
        return {"when": conditions.document(self.when), "trial": self.trial}


def read_cases(content: object) -> dict[str, Case]:
    """Parse cases such as ``{NAME: {when: {method: bip}, trial: {prune: {epochs: 10}}}}``; null removes a case.

    Raises:
        UserError: the content has another form.
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
    """Return the template of a cell's trials: ``trial`` with every case that applies merged over it, in order."""
    content = dict(trial)
    for case in cases.values():
        if holds(case.when, cell):
            content = merge(content, case.trial)
    return copy.deepcopy(content)
