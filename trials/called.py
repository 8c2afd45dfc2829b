"""What the commands are called, for usage lines and messages: as the running command was called."""

from __future__ import annotations

import sys
from pathlib import Path

INSTALLED = ("sparsity-sweep", "sparsity-trial")
"""The commands that pip installs."""


def sweep_command() -> str:
    """The command that runs sweeps: ``sparsity-sweep``, ``sweep.py`` or ``python -m sweeper``."""
    name = _script()
    if name in INSTALLED:
        return INSTALLED[0]
    return name if name == "sweep.py" else "python -m sweeper"


def trial_command() -> str:
    """The command that runs single trials and reads them: ``sparsity-trial`` or ``python -m trials``."""
    return INSTALLED[1] if _script() in INSTALLED else "python -m trials"


def _script() -> str:
    """The name of the script that Python runs; empty if it runs none."""
    return Path(sys.argv[0]).name if sys.argv else ""
