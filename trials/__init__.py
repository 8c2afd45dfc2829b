"""Everything that one trial runs: methods, models, data, sparsity. Never imports Ray, Optuna, pandas or ``sweeper``."""

from trials.version import __version__

__all__ = ["__version__"]
