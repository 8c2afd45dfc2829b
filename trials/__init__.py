"""Everything that one trial runs: methods, models, data, sparsity. Never imports Ray, Optuna, pandas or ``sweeper``.

``trials.run(config)`` runs one trial in this process and returns a :class:`Trial`; ``trials.load(folder)`` reads one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trials.version import __version__

if TYPE_CHECKING:
    from trials.single import Trial, load, run

__all__ = ["Trial", "__version__", "load", "run"]


def __getattr__(name: str) -> Any:
    """Import torch on first use only."""
    if name in ("Trial", "load", "run"):
        from trials import single

        return getattr(single, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
