"""Which trials run where and when. ``sweeper.load("results/NAME")`` gives a sweep's tables as DataFrames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.results.frames import Sweep
    from sweeper.results.tables import load

__all__ = ["Sweep", "load"]


def __getattr__(name: str) -> Any:
    """Import pandas when a table is first asked for: a command line that needs none starts in half the time."""
    if name == "load":
        from sweeper.results.tables import load

        return load
    if name == "Sweep":
        from sweeper.results.frames import Sweep

        return Sweep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
