"""Everything that one trial runs: methods, models, data, sparsity. Never imports Ray, Optuna, pandas or ``sweeper``."""

__version__ = "0.1.0"
