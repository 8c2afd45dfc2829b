"""Plans sweeps and runs their trials: ``sweeper.run(space)`` runs one, ``sweeper.load("results/NAME")`` reads one.

docs/python.md shows both; ``sweep.py`` is the same on a command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trials.version import __version__

if TYPE_CHECKING:
    from sweeper.api import Space, run
    from sweeper.sweep import Sweep, load

__all__ = ["Space", "Sweep", "__version__", "load", "run"]


def __getattr__(name: str) -> Any:
    """Import torch and pandas on first use only: commands that need neither start in half the time."""
    if name in ("Space", "run"):
        from sweeper import api

        return getattr(api, name)
    if name in ("Sweep", "load"):
        from sweeper import sweep

        return getattr(sweep, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
