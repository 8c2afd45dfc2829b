"""Numbers as text for a terminal."""

from __future__ import annotations

_SHOWN_WHOLE = 1e15


def fixed(value: float, places: int, sign: str = "") -> str:
    """A number with so many decimals; one of 16 digits or more in four, as 1.5e+308."""
    return f"{value:{sign}.{places}f}" if abs(value) < _SHOWN_WHOLE else f"{value:{sign}.4g}"
