"""Signals that ask a process to end, with everything committed."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

BATCH_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
"""What batch systems send ahead of a job's end: SLURM what ``--signal`` names, often SIGUSR1; Grid Engine SIGUSR2
(``-notify``), SIGUSR1 and SIGXCPU (its soft limits); LSF SIGUSR2. The kernel sends SIGXCPU when a process is beyond
``ulimit -t``, and again each second: a repeated warning is no second request."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *BATCH_WARNINGS)
"""Signals on which a run commits what it has, and ends."""

_warned: set[int] = set()


def was_warned(number: int) -> None:
    """Note a signal that has come: after a batch system's warning, further ones must not kill the process that ends."""
    if number in BATCH_WARNINGS:
        _warned.add(number)


def restore(before: Mapping[signal.Signals, Any]) -> None:
    """Set signals' handlers as they were ``before``; after a warning, those of warnings that would kill are ignored."""
    for number, old in before.items():
        if old is not None:  # installed from Python
            ends = _warned and number in BATCH_WARNINGS and old == signal.SIG_DFL
            signal.signal(number, signal.SIG_IGN if ends else old)
