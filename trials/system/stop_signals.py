"""Signals that ask a process to end, with everything committed."""

from __future__ import annotations

import signal

BATCH_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
"""What batch systems send ahead of a job's end: SLURM what ``--signal`` names, often SIGUSR1; Grid Engine SIGUSR2
(``-notify``), SIGUSR1 and SIGXCPU (its soft limits); LSF SIGUSR2. The kernel sends SIGXCPU when a process is beyond
``ulimit -t``, and again each second: a repeated warning is no second request."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *BATCH_WARNINGS)
"""Signals on which a run commits what it has, and ends."""
