"""Published curves of accuracy over density, for the methods, models and data sets of a sweep's trials.

They lie in ``trials/reference/published_curves.csv``, with their sources. Densities are shares of the weights of all
convolutions and linear layers, as in a sweep's comparison. Tables that count something else (kernels, channels) are not
among them: their axis is another one.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from sweeper.columns import config_column

_CONDITION = re.compile(r"([\w.]+)([=>])(.+)")


@dataclass(frozen=True)
class PublishedCurve:
    """One curve of one source.

    Attributes:
        source: the paper and the repository.
        table: where in it the numbers stand.
        method, model, dataset: as configs name them.
        where: further conditions on fields, such as ``levels>1 and pattern=weight``; empty for none.
        points: density, accuracy and standard deviation (None where there is none), shares from 0 to 1.
        note: in what the released code differs from its paper or from here.
    """

    source: str
    table: str
    method: str
    model: str
    dataset: str
    where: str
    points: tuple[tuple[float, float, float | None], ...]
    note: str

    @property
    def name(self) -> str:
        """As the legend has it: ``published: prune_iterative, one-shot (README), vgg16, cifar10``."""
        return f"published: {self.method}, {self.table}, {self.model}, {self.dataset}"


@cache
def published_curves() -> tuple[PublishedCurve, ...]:
    """All published curves that come with this package."""
    text = (resources.files("trials") / "reference" / "published_curves.csv").read_text(encoding="utf-8")
    points: dict[tuple[str, ...], list[tuple[float, float, float | None]]] = {}
    names = ("source", "table", "method", "model", "dataset", "where", "note")
    for row in csv.DictReader(text.splitlines()):
        std = float(row["std"]) if row["std"] else None
        key = tuple(row[name] for name in names)
        points.setdefault(key, []).append((float(row["density"]), float(row["accuracy"]), std))
    return tuple(
        PublishedCurve(**dict(zip(names, key, strict=True)), points=tuple(sorted(found, reverse=True)))
        for key, found in points.items()
    )


def matching_curves(trials: pd.DataFrame) -> list[PublishedCurve]:
    """The curves whose method, model and data set some trial has; their further conditions must hold for it as well."""
    names = [config_column(name) for name in ("method", "model", "dataset")]
    if any(name not in trials for name in names):
        return []
    fields = {path for curve in published_curves() for path, _, _ in _conditions(curve.where)}
    columns = list(dict.fromkeys([*names, *(column for path in fields if (column := config_column(path)) in trials)]))
    rows: dict[tuple[Any, ...], list[dict[Any, Any]]] = {}
    for values in zip(*(trials[column].tolist() for column in columns), strict=True):
        rows.setdefault(values[:3], []).append(dict(zip(columns, values, strict=True)))
    return [
        curve
        for curve in published_curves()
        if any(_holds(curve.where, row) for row in rows.get((curve.method, curve.model, curve.dataset), ()))
    ]


def _conditions(where: str) -> list[tuple[str, str, str]]:
    """Field, sign and value of each of the conditions ``field=value`` or ``field>number``."""
    matches = [_CONDITION.fullmatch(one) for one in where.split(" and ")]
    return [(found[1], found[2], found[3]) for found in matches if found is not None]


def _holds(where: str, trial: dict[Any, Any]) -> bool:
    """Whether all conditions hold for a trial; one on a field that is unknown does."""
    for path, sign, bound in _conditions(where):
        value = trial.get(config_column(path))
        if value is None or value is pd.NA or value != value:
            continue
        if not (float(value) > float(bound) if sign == ">" else str(value) == bound):
            return False
    return True
