"""An S3 server on loopback, with a log of its requests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto.server import ThreadedMotoServer

from trials.storage.place import ENVIRONMENT, ObjectPath

BUCKET = "storage-of-tests"


class Requests(logging.Handler):
    """``(method, path)`` of every request, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage().split('"')
        if len(words) > 1 and len(request := words[1].split()) >= 2:
            method, path = request[:2]
            self.seen.append((method.rpartition("m")[2], path))

    def take(self) -> list[tuple[str, str]]:
        """The requests since the last call."""
        seen, self.seen = self.seen, []
        return seen


@contextmanager
def served() -> Iterator[Requests]:
    """A server with an empty bucket; environment variables hold its address and keys."""
    log = logging.getLogger("werkzeug")
    requests, level = Requests(), log.level
    log.propagate = False
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    log.setLevel(logging.INFO)
    log.addHandler(requests)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name in ENVIRONMENT:
            patch.delenv(name, raising=False)
        for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket=BUCKET)
        try:
            yield requests
        finally:
            log.removeHandler(requests)
            log.setLevel(level)
            log.propagate = True
            server.stop()


def prefix(name: str) -> ObjectPath:
    """A place in the bucket for a test of that name."""
    return ObjectPath(f"{BUCKET}/{name}")
