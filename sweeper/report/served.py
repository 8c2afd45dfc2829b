"""``--serve``: a sweep's report for browsers on this machine, with rows as they come.

The server listens on the loopback and answers only who knows its token, a new one at every start: other users of the
machine can reach the port, too, as can pages of other sites in the same browser. The token stays in the address. A
cookie would go to every port of 127.0.0.1, so also to those of others. See docs/security.md.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rich.console import Console

from sweeper.console import print_line
from sweeper.doors import NOT_HERE, forwarding_line, is_own_host
from sweeper.report.live_page import Content, LivePage
from sweeper.report.page import LiveSource
from trials.storage.place import ObjectPath, Place

REPORT_PORT = 8088

POLL_EVERY_S = 2.0
"""Seconds between two questions of a page for what is new."""

_TAKES_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))", re.ASCII)

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def serve_report(path: Place, console: Console, *, port: int = REPORT_PORT) -> None:
    """Serve a sweep's report to browsers on this machine until interrupted; another port if ``port`` is taken.

    Raises:
        UserError: there is no such sweep.
    """
    token = secrets.token_urlsafe(32)
    source = LiveSource(f"parts.json?token={token}", POLL_EVERY_S)
    page = LivePage(path, source, lambda line: print_line(console, line))
    server = _bound(page, token, port)
    address = f"http://127.0.0.1:{server.server_port}/?token={token}"
    print_line(console, f"{address} shows {path.name}; Ctrl-C ends it")
    forwarding = forwarding_line(server.server_port)
    if forwarding is not None:
        print_line(console, f"to see it from the machine that you came from, run there: {forwarding}")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print_line(console, "ended")
    finally:
        server.server_close()
        if not page.end() and isinstance(path, ObjectPath):  # Python would wait for the store's answers
            sys.stdout.flush()
            os._exit(0)


def _bound(page: LivePage, token: str, port: int) -> ReportServer:
    try:
        return ReportServer(page, token, port)
    except OSError:
        return ReportServer(page, token, 0)


class ReportServer(ThreadingHTTPServer):
    """Answers ``/`` and ``/parts.json`` on 127.0.0.1, from memory: no file is ever opened for a request."""

    daemon_threads = True

    def __init__(self, page: LivePage, token: str, port: int) -> None:
        self.page, self.token = page, token
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        """Bind without asking for the machine's name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the browser has gone away."""


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer
    protocol_version = "HTTP/1.1"
    timeout = 60.0  # of a connection on which nothing comes

    def do_GET(self) -> None:
        """Answer a request."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not is_own_host(hosts[0]):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, NOT_HERE)
            return
        try:
            asked = urlsplit(self.path)
        except ValueError:
            self._refuse(HTTPStatus.BAD_REQUEST, "that is no address")
            return
        given = parse_qs(asked.query).get("token", [])
        if len(given) != 1 or not secrets.compare_digest(given[0].encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that the command has printed, with its token")
            return
        kinds = {"/": "text/html; charset=utf-8", "/parts.json": "application/json"}
        if asked.scheme or asked.netloc or asked.path not in kinds:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
            return
        try:
            content = self.server.page.page() if asked.path == "/" else self.server.page.parts()
        except Exception as error:  # noqa: BLE001  said to the one who asks
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"the page could not be drawn ({error})")
            return
        self._give(content, kinds[asked.path])

    def do_HEAD(self) -> None:
        """Answer as to GET, without the content."""
        self.do_GET()

    def _give(self, content: Content, kind: str) -> None:
        tag = f'"{content.tag}"'
        if tag in (self.headers.get("If-None-Match") or ""):
            self._head(HTTPStatus.NOT_MODIFIED, {"ETag": tag})
            return
        packs = _TAKES_GZIP.search(self.headers.get("Accept-Encoding") or "") is not None
        body = content.packed if packs else content.plain
        headers = {"ETag": tag, "Content-Type": kind, "Content-Length": str(len(body)), "Vary": "Accept-Encoding"}
        self._head(HTTPStatus.OK, {**headers, "Content-Encoding": "gzip"} if packs else headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        body = f"{text}\n".encode()
        self.close_connection = True  # a body that was sent along is not read
        headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), "Connection": "close"}
        self._head(status, headers | ({"Allow": "GET, HEAD"} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}))
        if getattr(self, "command", None) != "HEAD":
            self.wfile.write(body)

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request, or has another method, with this server's headers."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._refuse(status, status.phrase)

    def version_string(self) -> str:
        """Say neither the version of Python nor that of its server."""
        return "sparsity-sweep"

    def log_message(self, format: str, *_: Any) -> None:
        """Do not log requests."""
