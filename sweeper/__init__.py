"""Which trials run where and when. ``sweeper.load("results/NAME")`` gives a sweep's tables as DataFrames."""

from __future__ import annotations

from sweeper.results.tables import Sweep, load

__all__ = ["Sweep", "load"]
