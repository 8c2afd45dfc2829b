"""Runs all benchmarks (``python -m benchmarks``) or some (``python -m benchmarks selection scale``).

The GPU check is not among them; ``python -m benchmarks gpu …`` forwards to ``python -m benchmarks.gpu …``.
"""

from __future__ import annotations

import importlib
import sys

from benchmarks.timing import machine

ALL = ("selection", "steps", "regrowth", "search", "overhead", "scale")

if sys.argv[1:2] == ["gpu"]:
    sys.exit(importlib.import_module("benchmarks.gpu.__main__").main(sys.argv[2:]))
for name in sys.argv[1:] or ALL:
    if name not in ALL:
        sys.exit(f"error: benchmark is {name!r}, but must be one of: {', '.join(ALL)}, or gpu and its options")
    print(f"{name} on {machine()}", flush=True)
    importlib.import_module(f"benchmarks.{name}").main()
