"""How a browser on another machine reaches a page that this machine serves on its loopback."""

from __future__ import annotations

import getpass
import os
import socket


def forwarding_line(port: int) -> str | None:
    """Return the command that forwards a port of this machine over ssh; None in a session that ssh has not opened.

    The command is for the machine from which the session was opened: ``ssh -L PORT:127.0.0.1:PORT USER@HOST``. Names
    and a port of sshd other than 22 are those that this machine knows; behind a jump host they may be others.
    """
    connection = os.environ.get("SSH_CONNECTION", "").split()  # client's address and port, this machine's
    if not connection:
        return None
    own = connection[3:4]
    sshd = f"-p {own[0]} " if own and own[0].isdecimal() and own[0] != "22" else ""
    return f"ssh {sshd}-L {port}:127.0.0.1:{port} {_user()}{socket.gethostname()}"


def _user() -> str:
    try:
        return f"{getpass.getuser()}@"
    except (KeyError, OSError):  # a user id without a name, as in a container
        return ""
