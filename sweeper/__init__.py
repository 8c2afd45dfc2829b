"""Plans sweeps and runs their trials. ``sweeper.load("results/NAME")`` returns a sweep's tables as DataFrames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trials.version import __version__

if TYPE_CHECKING:
    from sweeper.results.frames import Sweep
    from sweeper.results.tables import load

__all__ = ["Sweep", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import pandas on first use only: commands that need no table start in half the time."""
    if name == "load":
        from sweeper.results.tables import load

        return load
    if name == "Sweep":
        from sweeper.results.frames import Sweep

        return Sweep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
