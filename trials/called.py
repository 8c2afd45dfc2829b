"""What the commands are called, for usage lines and messages: as the running command was called; and who reads them."""

from __future__ import annotations

import os
import select
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


def reader_has_gone() -> bool:
    """Whether a BrokenPipeError came from standard output, as under ``| head``; nothing is written to it afterwards."""
    out = select.poll()
    try:
        out.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # no file
        return False
    gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in out.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def _script() -> str:
    """The name of the script that Python runs; empty if it runs none."""
    return Path(sys.argv[0]).name if sys.argv else ""
