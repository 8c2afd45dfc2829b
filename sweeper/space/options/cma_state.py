"""CMA-ES's state as JSON. Optuna leaves it on a trial as a pickle; nothing here is kept as one."""

from __future__ import annotations

import base64
import pickle
from typing import Any

import cmaes
import numpy as np

KINDS = {"cma:optimizer": cmaes.CMA, "sepcma:optimizer": cmaes.SepCMA}
"""By the name that Optuna gives the attributes, which it numbers: texts have a longest length in databases."""

LONGEST = 2045
"""Optuna's own; it concatenates whatever it finds."""


def to_json(attrs: dict[str, Any]) -> dict[str, Any]:
    """A trial's attributes with CMA-ES's state as numbers and arrays."""
    found = {}
    for prefix in KINDS:
        parts = [key for key in attrs if key.startswith(f"{prefix}:")]
        if parts:
            text = "".join(attrs[f"{prefix}:{i}"] for i in range(len(parts)))
            state = pickle.loads(bytes.fromhex(text)).__getstate__()  # this process's own, never a file's
            found[prefix] = {name: _plain(value) for name, value in sorted(state.items())}
    rest = {key: value for key, value in attrs.items() if not any(key.startswith(f"{prefix}:") for prefix in KINDS)}
    return {**rest, **found}


def from_json(attrs: dict[str, Any]) -> dict[str, Any]:
    """:func:`to_json` undone."""
    found = {key: value for key, value in attrs.items() if key not in KINDS}
    for prefix, kind in KINDS.items():
        if prefix in attrs:
            optimizer = kind.__new__(kind)
            optimizer.__setstate__({name: _restored(value) for name, value in attrs[prefix].items()})
            text = pickle.dumps(optimizer).hex()
            parts = [text[start : start + LONGEST] for start in range(0, len(text), LONGEST)]
            found |= {f"{prefix}:{i}": part for i, part in enumerate(parts)}
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"dtype": value.dtype.str, "shape": list(value.shape), "base64": data}
    return value.item() if isinstance(value, np.generic) else value


def _restored(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    data = np.frombuffer(base64.b64decode(value["base64"]), np.dtype(value["dtype"]))
    return data.reshape(value["shape"]).copy()
