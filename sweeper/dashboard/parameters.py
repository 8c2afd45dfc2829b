"""One distribution for all values that a parameter takes in a sweep, whether cells fix it or draw it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

_PLAIN = (type(None), bool, int, float, str)
"""What Optuna's choices may be."""

_LOG_FROM = 10.0
"""Grid values that span this factor are drawn on a logarithmic axis."""


def common_distribution(
    fixed: Collection[Any], drawn: Sequence[BaseDistribution], seen: Collection[Any]
) -> BaseDistribution:
    """Return a distribution that holds every value of a parameter.

    Numbers get a range, everything else, and numbers beside other values, choices.

    Args:
        fixed: its grid values, each once.
        drawn: the distributions that cells draw it from, each once.
        seen: the values drawn.
    """
    if len(drawn) == 1 and not fixed:
        return drawn[0]
    ranges = [one for one in drawn if isinstance(one, FloatDistribution | IntDistribution)]
    choices = [value for one in drawn if isinstance(one, CategoricalDistribution) for value in one.choices]
    numbers = [*fixed, *choices]
    if all(map(_is_number, numbers)):
        return _range(numbers, ranges)
    return CategoricalDistribution(_choices([*numbers, *(sorted(set(seen), key=str) if ranges else ())]))


def shown_value(value: Any, distribution: BaseDistribution) -> Any:
    """A parameter's value as its :func:`common_distribution` has it."""
    if isinstance(distribution, FloatDistribution):
        return float(value)
    if isinstance(distribution, IntDistribution):
        return int(value)
    assert isinstance(distribution, CategoricalDistribution)
    same = [one for one in distribution.choices if type(one) is type(value) and one == value]
    return same[0] if same else _text(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _range(numbers: Sequence[float], ranges: Sequence[FloatDistribution | IntDistribution]) -> BaseDistribution:
    low = min([*numbers, *(one.low for one in ranges)])
    high = max([*numbers, *(one.high for one in ranges)])
    log = low > 0 and (all(one.log for one in ranges) if ranges else high / low >= _LOG_FROM)
    if all(isinstance(value, int) for value in numbers) and all(isinstance(one, IntDistribution) for one in ranges):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _choices(values: Sequence[Any]) -> list[Any]:
    """Choices that Optuna can hold and tell apart: it takes true for 1, so where both occur, all are texts."""
    plain = [
        value if value is None or isinstance(value, bool | int | float | str) else _text(value) for value in values
    ]
    by_type = list({(type(value), value): value for value in plain}.values())
    return by_type if len(set(by_type)) == len(by_type) else list(dict.fromkeys(map(_text, by_type)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
