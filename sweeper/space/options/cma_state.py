"""Converts CMA-ES's state, which Optuna stores on a trial as a pickle, to JSON and back, so that no pickle is saved."""

from __future__ import annotations

import base64
import pickle
from typing import Any

import numpy as np

PREFIXES = ("cma:optimizer", "sepcma:optimizer")
"""Prefixes of Optuna's attribute names. A part number follows, because Optuna splits the state into several texts."""

LONGEST = 2045
"""Optuna's length of a part; when reading, it joins all parts."""


def to_json(attrs: dict[str, Any]) -> dict[str, Any]:
    """Return a trial's attributes with CMA-ES's state as numbers and arrays."""
    found = {}
    for prefix in PREFIXES:
        parts = [key for key in attrs if key.startswith(f"{prefix}:")]
        if parts:
            text = "".join(attrs[f"{prefix}:{i}"] for i in range(len(parts)))
            state = pickle.loads(bytes.fromhex(text)).__getstate__()  # made by this process, never read from a file
            found[prefix] = {name: _plain(value) for name, value in sorted(_written(state).items())}
    rest = {key: value for key, value in attrs.items() if not any(key.startswith(f"{prefix}:") for prefix in PREFIXES)}
    return {**rest, **found}


def _written(state: dict[str, Any]) -> dict[str, Any]:
    """A state with zeros where it holds memory that has not been written: what is left of its history of values."""
    history, generation, length = (state.get(name) for name in ("_funhist_values", "_g", "_funhist_term"))
    if history is None or generation is None or length is None or generation >= length:
        return state
    known = np.zeros_like(history)
    known[2 : 2 * (generation + 1)] = history[2 : 2 * (generation + 1)]
    return {**state, "_funhist_values": known}


def from_json(attrs: dict[str, Any]) -> dict[str, Any]:
    """Invert :func:`to_json`."""
    found = {key: value for key, value in attrs.items() if key not in PREFIXES}
    for prefix in PREFIXES:
        if prefix in attrs:
            kind = _optimizer(prefix)
            optimizer = kind.__new__(kind)
            optimizer.__setstate__({name: _restored(value) for name, value in attrs[prefix].items()})
            text = pickle.dumps(optimizer).hex()
            parts = [text[start : start + LONGEST] for start in range(0, len(text), LONGEST)]
            found |= {f"{prefix}:{i}": part for i, part in enumerate(parts)}
    return found


def _optimizer(prefix: str) -> Any:
    """Return the class whose state an attribute holds."""
    import cmaes  # imports scipy, which takes longer than loading a space

    return cmaes.CMA if prefix == "cma:optimizer" else cmaes.SepCMA


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
