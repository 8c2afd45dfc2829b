"""Runs all benchmarks (``python -m benchmarks``) or some (``python -m benchmarks selection scale``).

The GPU check is not among them; ``python -m benchmarks gpu …`` forwards to ``python -m benchmarks.gpu …``. With
options, ``python -m benchmarks regrowth --quick …`` times the parts of a regrowth (benchmarks/regrowth_parts.py), and
``python -m benchmarks coupled --all`` compares 42 networks (benchmarks/coupled.py).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

ALL = (
    *("selection", "coupled", "steps", "regrowth", "search", "checks", "starts"),
    *("overhead", "driver", "scale", "report"),
)


def machine() -> Any:
    """Describe this machine; imports torch, which the process that supervises the GPU check does without."""
    return importlib.import_module("benchmarks.timing").machine()


if sys.argv[1:2] == ["gpu"]:
    sys.exit(importlib.import_module("benchmarks.gpu.__main__").main(sys.argv[2:]))
if sys.argv[1:2] == ["regrowth"] and any(argument.startswith("-") for argument in sys.argv[2:]):
    sys.exit(importlib.import_module("benchmarks.regrowth_parts").main(sys.argv[2:]))
if sys.argv[1:2] == ["coupled"] and any(argument.startswith("-") for argument in sys.argv[2:]):
    if "--bare" not in sys.argv:
        print(f"coupled on {machine()}", flush=True)
    sys.exit(importlib.import_module("benchmarks.coupled").main(sys.argv[2:]))
parser = argparse.ArgumentParser(
    prog="python -m benchmarks",
    description="Measure performance, as ratios to a baseline in the same run.",
    epilog="or: python -m benchmarks gpu --help; python -m benchmarks regrowth --help",
)
parser.add_argument("benchmarks", nargs="*", metavar="NAME", help=f"some of {', '.join(ALL)}; default: all of them")
options = parser.parse_args()
for name in options.benchmarks:
    if name not in ALL:
        parser.error(f"benchmark is {name!r}, but must be one of: {', '.join(ALL)}, or gpu and its options")
for name in options.benchmarks or ALL:
    print(f"{name} on {machine()}", flush=True)
    importlib.import_module(f"benchmarks.{name}").main()
