"""Which cluster is joined, asked of servers that answer as the head of a cluster does, or otherwise."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from ray._private.utils import compute_version_info
from ray.core.generated import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc

from sweeper.execution.on_ray import joining
from sweeper.execution.on_ray.joining import cluster_to_join
from trials.errors import UserError

pytestmark = pytest.mark.fault("no-cluster")

RAY, PYTHON = compute_version_info()
NODE = b"\x01" * 28
TOKEN = "a-token-of-a-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(joining, "ANSWER_S", 6.0)  # also on a busy machine
    monkeypatch.setattr(joining, "HERE_S", 0.2)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(joining.services, "find_node_ids", lambda: {NODE.hex()})
    monkeypatch.setattr(joining.services, "find_gcs_addresses", _none_found)
    monkeypatch.setattr(joining.services, "resolve_ip_for_localhost", lambda host: host)


def _none_found() -> frozenset[str]:
    return frozenset()


_none_found.cache_clear = lambda: None  # type: ignore[attr-defined]


@contextlib.contextmanager
def head(ray: str = RAY, python: str = PYTHON, *, wants_token: bool = False, alive: bool = True) -> Iterator[str]:
    """A server that answers what a run asks of a cluster's head."""

    class Values(gcs_service_pb2_grpc.InternalKVGcsServiceServicer):  # type: ignore[misc]
        def InternalKVGet(self, request: Any, context: Any) -> Any:  # noqa: N802
            if wants_token:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
            value = json.dumps({"ray_version": ray, "python_version": python}).encode()
            return gcs_service_pb2.InternalKVGetReply(value=value)

    class Nodes(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):  # type: ignore[misc]
        def GetAllNodeInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
            state = gcs_pb2.GcsNodeInfo.ALIVE if alive else gcs_pb2.GcsNodeInfo.DEAD
            return gcs_service_pb2.GetAllNodeInfoReply(node_info_list=[gcs_pb2.GcsNodeInfo(node_id=NODE, state=state)])

    server = grpc.server(ThreadPoolExecutor(2))
    gcs_service_pb2_grpc.add_InternalKVGcsServiceServicer_to_server(Values(), server)
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(Nodes(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def other_service(greeting: bytes | None) -> Iterator[str]:
    """A port that says this to whoever connects, and closes; None: it accepts, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    kept.append(connection)
                    if greeting is not None:
                        with contextlib.suppress(OSError):  # this client may have gone already; others come
                            connection.sendall(greeting)
                            connection.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


def refused(address: str | None) -> str:
    began = time.monotonic()
    with pytest.raises(UserError) as raised:
        cluster_to_join(address, lambda line: pytest.fail(line))
    assert time.monotonic() - began < 8
    line = str(raised.value)
    assert "\n" not in line
    return line


def test_a_cluster_of_this_machine_is_joined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with head() as address:
        assert cluster_to_join(address, pytest.fail) == address
        assert cluster_to_join("local", pytest.fail) is None
        noted(tmp_path, address)
        assert cluster_to_join(None, pytest.fail) == address
        assert cluster_to_join("auto", pytest.fail) == address
        noted(tmp_path, closed_port())
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert cluster_to_join(None, pytest.fail) == address
        assert cluster_to_join("auto", pytest.fail) == address
        monkeypatch.setenv("RAY_ADDRESS", "local")
        assert cluster_to_join(None, pytest.fail) is None


def noted(folder: Path, address: str) -> None:
    (folder / "ray").mkdir(exist_ok=True)
    (folder / "ray" / "ray_current_cluster").write_text(address)


def test_without_any_cluster_a_ray_starts_here() -> None:
    assert cluster_to_join(None, pytest.fail) is None
    assert "no Ray cluster runs on this machine" in refused("auto")


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    yield closed_port()


OTHERS: dict[str, tuple[Callable[[], Any], str]] = {
    "closed": (nobody, "nothing answers"),
    "http": (lambda: other_service(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "is not the head of a Ray cluster"),
    "ssh": (lambda: other_service(b"SSH-2.0-OpenSSH_9.6\r\n"), "is not the head of a Ray cluster"),
    "none of its machines": (lambda: head(alive=False), "is none of that cluster's: add it (ray start --address"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_cluster_of_this_machine(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named, it is refused; if only Ray's file names it, a Ray is started here and a line says so."""
    server, reason = OTHERS[kind]
    with server() as address:
        line = refused(address)
        assert line.startswith(f"--address is {address!r}, but ")
        assert reason in line
        assert "--address local" in line
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert refused(None).startswith(f"RAY_ADDRESS is {address!r}, but ")
        monkeypatch.delenv("RAY_ADDRESS")
        noted(tmp_path, address)
        said: list[str] = []
        assert cluster_to_join(None, said.append) is None
        assert len(said) == 1
        assert reason in said[0]
        assert said[0].endswith("a Ray is started here")
        assert reason in refused("auto")


def test_a_head_that_does_not_answer_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be busy, or stopped for a moment."""
    monkeypatch.setattr(joining, "ANSWER_S", 1.0)
    with other_service(None) as address:
        assert "does not answer" in refused(address)
        noted(tmp_path, address)
        line = refused(None)
        assert "does not answer" in line
        assert "--address local" in line


@pytest.mark.parametrize(("ray", "python"), [("2.9.3", PYTHON), (RAY, "3.9.1")])
def test_a_head_of_another_version_is_named_with_both(ray: str, python: str, tmp_path: Path) -> None:
    with head(ray, python) as address:
        noted(tmp_path, address)
        for line in (refused(address), refused(None)):
            assert f"runs Ray {ray} and Python {python}" in line
            assert f"this command runs Ray {RAY} and Python {PYTHON}" in line


@pytest.mark.parametrize(
    ("mode", "reason"),
    [(None, "this machine has none: copy its ~/.ray/auth_token"), ("disabled", "RAY_AUTH_MODE is 'disabled' here")],
)
def test_a_cluster_with_a_token_that_is_not_here(
    mode: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "maybe_enable_token_auth_if_token_available", lambda warn: False)
    monkeypatch.setattr(joining, "_has_token", lambda: False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with head(wants_token=True) as address:
        assert reason in refused(address)


@pytest.mark.parametrize("address", ["foo", "foo:bar", "foo:0", "foo:99999", ":6379", "http://127.0.0.1:8265", "[::1"])
def test_what_is_no_address(address: str) -> None:
    assert f"--address is {address!r}, but no Ray cluster can be joined there: an address is HOST:PORT" in refused(
        address
    )


def test_a_host_that_does_not_exist() -> None:
    assert "nothing answers at nosuch.invalid:6379" in refused("nosuch.invalid:6379")


@pytest.mark.parametrize("content", ["", "nonsense", "a:b:c", "127.0.0.1"])
def test_a_damaged_file_of_ray_is_passed_over(content: str, tmp_path: Path) -> None:
    noted(tmp_path, content)
    said: list[str] = []
    assert cluster_to_join(None, said.append) is None
    assert len(said) == 1
