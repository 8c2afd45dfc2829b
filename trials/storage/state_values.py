"""What the result and the environments of a state may hold: tables make columns of both.

A method may report figures of its own, of any value that JSON has (trials/running/figures.py checks what it gives). So
only what the trial itself writes has types here, and names that would take another column's place are none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trials.errors import shown
from trials.storage.rows import BESIDE_ENDS, COMPACT, LATENCY, RESULT, TAKEN_COLUMNS

_COUNTS = frozenset({
    *("kept", "prunable", "empty_layers", "macs", "flops", "parameters", *COMPACT, "dense_flops", "dense_parameters"),
    *("epochs", "pruned_at", "gradient_evaluations", "cost_flops"),
})  # fmt: skip
_FIGURES = frozenset({*RESULT, *LATENCY, "cost", "dense_cost"}) - _COUNTS
_TEXTS = frozenset({"report", "data", "data_source"})

MOST_FIGURE = 10**150
"""What no figure that a trial measures reaches."""

_OF_ENVIRONMENT: dict[str, type] = {
    **dict.fromkeys(("device", "torch", "cuda", "precision", "memory_format", "commit", "plugin_sources"), str),
    **dict.fromkeys(("threads", "schema"), int),
    **dict.fromkeys(("tf32", "deterministic"), bool),
}

_OF_OTHERS = TAKEN_COLUMNS["trials"] - _COUNTS - _FIGURES - _TEXTS - {"warnings", "seconds"}
"""Columns of ``trials`` that a result does not give."""

_NOT_OF_ENVIRONMENTS = (TAKEN_COLUMNS["trials"] | frozenset(RESULT)) - _OF_ENVIRONMENT.keys()


def require_result(result: Mapping[str, Any]) -> None:
    """Check a trial's result.

    Raises:
        ValueError: a name is another column's, or a figure that the trial measures is of another type.
    """
    for name, value in result.items():
        if not _may_name(name, _OF_OTHERS) or not _fits(name, value):
            raise ValueError(f"result has {shown(name)}: {shown(value)}")


def require_environment_values(environment: Mapping[str, Any]) -> None:
    """Check where a trial was computed.

    Raises:
        ValueError: a name is another column's, or a value is of another type than this code writes.
    """
    for name, value in environment.items():
        kind = _OF_ENVIRONMENT.get(name)
        known = value is None or (isinstance(value, (str, bool, int, float)) if kind is None else type(value) is kind)
        if not known or not _may_name(name, _NOT_OF_ENVIRONMENTS) or (kind is int and not _is_count(value)):
            raise ValueError(f"an environment has {shown(name)}: {shown(value)}")


def _may_name(name: str, taken: frozenset[str]) -> bool:
    surrogates = any("\ud800" <= character <= "\udfff" for character in name)
    return bool(name) and not surrogates and name not in taken and not name.endswith(BESIDE_ENDS)


def _fits(name: str, value: Any) -> bool:
    if value is None:
        return True
    if name == "warnings":
        return isinstance(value, list) and all(isinstance(code, str) for code in value)
    if name in _TEXTS:
        return isinstance(value, str)
    if name in _COUNTS:
        return _is_count(value)
    return name not in _FIGURES or _is_figure(value)


def _is_count(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and -(2**63) <= value < 2**63)


def _is_figure(value: Any) -> bool:
    """Whether it is no finite number, which counts as none, or so small that sums of squares are finite."""
    return (type(value) is float and not math.isfinite(value)) or (
        type(value) in (int, float) and abs(value) < MOST_FIGURE
    )
