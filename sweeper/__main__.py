"""``python -m sweeper`` and the installed command ``sparsity-sweep``: the same command line as ``sweep.py``."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Run the command line of this process and return the exit code."""
    gc.disable()  # modules that load leave next to no garbage, and looking for it takes a tenth of the time of --show
    from sweeper.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
