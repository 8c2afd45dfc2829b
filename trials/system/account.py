"""Processes of a user without an account on this machine, as in containers that run as ``--user 12345``."""

from __future__ import annotations

import os
import pwd

NO_HOME = "/nonexistent"
"""What Debian gives accounts that have no home: a path that is not there, and that nobody else can make either."""

_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def name_account() -> None:
    """Let libraries find a home and a user's name where this machine knows none: they end with a traceback otherwise.

    Both are put into the environment of this process and of those that it starts. The home is a path that does not
    exist, so nothing is written there; the name is the user's number.
    """
    if "HOME" in os.environ and any(os.environ.get(name) for name in _NAMES):
        return
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("HOME", NO_HOME)
        if not any(os.environ.get(name) for name in _NAMES):
            os.environ["USER"] = str(os.getuid())
