"""Every benchmark: ``python -m benchmarks``, or some of them: ``python -m benchmarks selection scale``."""

from __future__ import annotations

import importlib
import sys

from benchmarks.timing import machine

ALL = ("selection", "steps", "regrowth", "search", "overhead", "scale")

for name in sys.argv[1:] or ALL:
    if name not in ALL:
        sys.exit(f"error: benchmark is {name!r}, but must be one of: {', '.join(ALL)}")
    print(f"{name} on {machine()}", flush=True)
    importlib.import_module(f"benchmarks.{name}").main()
