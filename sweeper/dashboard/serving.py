"""Serve a sweep with optuna-dashboard, from a copy in an Optuna storage that follows the sweep while it is shown."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from rich.console import Console

from sweeper.console import print_line
from sweeper.dashboard.study_copy import StudyCopy, write_copy
from sweeper.doors import NOT_HERE, comes_from, forwarding_line, is_own_host
from sweeper.folder.sweep_folder import SweepFolder
from trials.errors import UserError
from trials.optional import require
from trials.storage.place import Place

PORT = 8080
REFRESH_EVERY_S = 10.0

_HEADERS = (
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Do not log requests."""


def serve(path: Place, console: Console, *, port: int = PORT) -> None:
    """Serve a sweep to browsers on this machine until interrupted; uses another port if ``port`` is taken."""
    dashboard = require("optuna_dashboard", "dashboard", "--dashboard")
    copy = write_copy(SweepFolder(path))
    app = guarded(dashboard.wsgi(copy.storage))
    server = _bind(app, port)
    over = threading.Event()
    threading.Thread(target=_follow, args=(copy, over, console), daemon=True).start()
    print_line(console, f"http://127.0.0.1:{server.server_port}/ shows {path.name}; Ctrl-C ends it")
    forwarding = forwarding_line(server.server_port)
    if forwarding is not None:
        print_line(console, f"to see it from the machine that you came from, run there: {forwarding}")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print("ended", markup=False)
    finally:
        over.set()
        server.server_close()


def guarded(app: Any) -> Any:
    """Return a WSGI application that answers as ``app`` does, but only to pages of this machine.

    Requests that name another host are refused (DNS rebinding), and those that may change something if another site
    sends them (cross-site request forgery). Other sites may not show the page in a frame.
    """

    def answer(environ: Mapping[str, Any], start: Callable[..., Any]) -> Any:
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        if not is_own_host(host):
            return _refused(start, "421 Misdirected Request", NOT_HERE)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            foreign = origin is not None and not comes_from(origin, host)
            if foreign or environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
                return _refused(start, "403 Forbidden", "another site may not change anything here")

        def begin(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start(status, [*headers, *_HEADERS], *error)

        return app(environ, begin)

    return answer


def _refused(start: Callable[..., Any], status: str, text: str) -> list[bytes]:
    body = f"{text}\n".encode()
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *_HEADERS])
    return [body]


def _follow(copy: StudyCopy, over: threading.Event, console: Console) -> None:
    """Refresh the copy until ``over``. If the storage cannot be read, say so once and try again at the next time."""
    failed = False
    while not over.wait(REFRESH_EVERY_S):
        try:
            copy.refresh()
        except (OSError, UserError) as error:
            if not failed:
                stale = f"{copy.folder.path.name} could not be read ({error}): what is shown is not up to date"
                console.print(f"{stale}; tried again every {REFRESH_EVERY_S:g} s", markup=False)
            failed = True
        else:
            failed = False


def _bind(app: Any, port: int) -> Any:
    """Bind to loopback only, because the dashboard has no password."""
    try:
        return make_server("127.0.0.1", port, app, server_class=_Server, handler_class=_Quiet)
    except OSError:
        return make_server("127.0.0.1", 0, app, server_class=_Server, handler_class=_Quiet)
