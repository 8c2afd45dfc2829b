"""Pages that this machine serves on its loopback: whose requests are answered, and how another machine reaches them."""

from __future__ import annotations

import getpass
import os
import re
import socket

NOT_HERE = "this server answers to 127.0.0.1 and localhost only"

_OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE)


def is_own_host(host: str) -> bool:
    """Whether the Host of a request is what a browser calls this machine, itself or behind a forwarded port.

    Another site whose name resolves to 127.0.0.1 (DNS rebinding) has its own name there.
    """
    return _OWN_HOST.fullmatch(host.strip()) is not None


def comes_from(origin: str, host: str) -> bool:
    """Whether a request's Origin is the page of this ``host``: other sites may not change anything here."""
    return origin.strip().casefold() == f"http://{host.strip()}".casefold()


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
