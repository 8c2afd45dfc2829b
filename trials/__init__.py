"""Everything that one trial runs: methods, models, data, sparsity. Never imports Ray, Optuna, pandas or ``sweeper``.

``trials.run(config)`` runs one trial in this process and returns a :class:`Trial`; ``trials.load(folder)`` reads one.
``trials.load_pretrained(folder)`` loads a network that was exported for the Hugging Face Hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trials.version import __version__

if TYPE_CHECKING:
    from trials.hub.pretrained import load_pretrained
    from trials.single import Trial, load, run

__all__ = ["Trial", "__version__", "load", "load_pretrained", "run"]


def __getattr__(name: str) -> Any:
    """Import torch on first use only."""
    if name in ("Trial", "load", "run"):
        from trials import single

        return getattr(single, name)
    if name == "load_pretrained":
        from trials.hub import pretrained

        return pretrained.load_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
