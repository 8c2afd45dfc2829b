"""Which trials run where and when. ``sweeper.load("results/NAME")`` gives a sweep's tables as DataFrames."""

from __future__ import annotations

from sweeper.results.frames import Sweep
from sweeper.results.tables import load

__all__ = ["Sweep", "load"]
