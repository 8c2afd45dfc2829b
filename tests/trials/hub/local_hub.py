"""A server on 127.0.0.1 that answers as the Hugging Face Hub does when a model is downloaded."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

SHA = "c0ffee" + "0" * 34


class LocalHub:
    """One repository with the files of a folder.

    Attributes:
        fetched: names of the files that have been downloaded.
    """

    def __init__(self, repository: str, folder: Path, revisions: tuple[str, ...] = ("main", SHA)) -> None:
        self.repository, self.folder, self.revisions = repository, folder, revisions
        self.fetched: list[str] = []
        self.gated = False

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content for a path."""
        api = f"/api/models/{self.repository}"
        if not path.startswith((api, f"/{self.repository}/")):
            return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        names = sorted(one.name for one in self.folder.iterdir())
        revision, _, file = path.partition("/resolve/")[2].partition("/")
        if path.startswith(api):
            revision = path.removeprefix(f"{api}/").partition("/")[2].partition("/")[0] or "main"
        if revision not in self.revisions:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        if "/tree/" in path:
            tree = [self._entry(name) for name in names]
            return 200, {}, json.dumps(tree).encode()
        if path.startswith(api):
            described = {"id": self.repository, "sha": SHA, "siblings": [{"rfilename": name} for name in names]}
            return 200, {}, json.dumps(described).encode()
        if file not in names:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        content = (self.folder / file).read_bytes()
        return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": SHA}, content

    def _entry(self, name: str) -> dict[str, object]:
        content = (self.folder / name).read_bytes()
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


@contextmanager
def serving(hub: LocalHub) -> Iterator[str]:
    """Serve a repository; yields the endpoint."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            status, headers, content = hub.answer(path)
            if status == 200 and "/resolve/" in path and self.command == "GET":
                hub.fetched.append(path.rpartition("/")[2])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
