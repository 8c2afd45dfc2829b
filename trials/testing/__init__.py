"""Checks of what plug-ins must do: for one's own methods, networks, data sets, scores, distributions and patterns.

Each check runs small trials in this process, within seconds, on a CPU or on the card that the fields name. It returns
nothing, or raises an AssertionError with a sentence that says what the plug-in must do. No test framework is needed::

    from trials.testing import check_method

    check_method(Snip, {"density": 0.2, "train": {"epochs": 2, "batch_size": 32}})

While a check runs, it adds to the names that this process knows, so it must not run in threads beside trials.
"""

from __future__ import annotations

from trials.testing.datasets import check_dataset
from trials.testing.methods import check_method
from trials.testing.models import check_model
from trials.testing.parts import check_distribution, check_pattern, check_score

__all__ = ["check_dataset", "check_distribution", "check_method", "check_model", "check_pattern", "check_score"]
