"""A sweep in optuna-dashboard: a study of the whole sweep, and one of each cell."""

from sweeper.dashboard.serving import serve
from sweeper.dashboard.study_copy import StudyCopy, write_copy

__all__ = ["StudyCopy", "serve", "write_copy"]
