"""``doors.py HOST...``: try every open port of some machines without the token, as gRPC and as HTTP.

A port is open if it serves a request; it is shut if it asks for the token (gRPC: unauthenticated; HTTP: 401 or 403) or
speaks neither. Exits with 1 if a port is open. ssh is not tried. Metrics (GET /metrics) are reported and allowed:
anyone with access to the port can read them, as docs/security.md states.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import ray

SSH = 22
PATIENCE_S = 20
"""Seconds for one answer of a busy machine. No answer in this time counts as open."""
HARMFUL = re.compile("shutdown|kill|drain|delete|free|remove|exit|restart", re.IGNORECASE)
SHUT = ("UNAUTHENTICATED", "UNIMPLEMENTED", "UNAVAILABLE")
PAGES = ("/api/version", "/api/jobs/", "/api/cluster_status", "/nodes?view=summary")  # "/" is the page that asks for it


def calls() -> list[str]:
    """One call of every Ray service, so that any service behind a port gets a call that it offers."""
    generated = Path(ray.__file__).parent / "core" / "generated"
    found = {"object manager": "/ray.rpc.ObjectManagerService/Pull"}  # known to C++ alone
    for path in sorted(generated.glob("*_pb2_grpc.py")):
        for service, call in re.findall(r"'/(ray[.\w]*)/(\w+)'", path.read_text()):
            if not HARMFUL.search(call):
                found.setdefault(service, f"/{service}/{call}")
    return list(found.values())


def open_ports(host: str) -> list[int]:
    """Every TCP port of a machine that accepts a connection."""

    def takes(port: int) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=2):
            return True
        return False

    with ThreadPoolExecutor(64) as pool:
        found = pool.map(takes, range(1, 65536))
        return [port for port, taken in enumerate(found, start=1) if taken]


def by_grpc(host: str, port: int) -> Iterator[tuple[str, str]]:
    """The port's answers to Ray's calls: (call, status)."""
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for call in calls():
            try:
                channel.unary_unary(call)(b"", timeout=PATIENCE_S)
                yield call, "OK"
            except grpc.RpcError as error:
                yield call, error.code().name
                if error.code() is grpc.StatusCode.UNAVAILABLE:  # it does not speak gRPC
                    return


def by_http(host: str, port: int) -> Iterator[tuple[str, int]]:
    """The port's answers to some requests: (page, status)."""
    for page in (*PAGES, "/metrics"):
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
        try:
            connection.request("GET", page)
            yield page, connection.getresponse().status
        except (OSError, http.client.HTTPException):
            yield page, 0
        finally:
            connection.close()


def verdict(host: str, port: int) -> tuple[bool, str]:
    """Whether the port is shut, and its answers."""
    answers = dict(by_grpc(host, port))
    codes = set(answers.values())
    open_calls = [call for call, code in answers.items() if code not in SHUT]
    pages = dict(by_http(host, port))
    metrics = pages.pop("/metrics") == 200
    open_pages = [page for page, status in pages.items() if 200 <= status < 400 and not metrics]
    said = f"gRPC {', '.join(sorted(codes))}; HTTP {', '.join(str(s) for s in sorted(set(pages.values())))}"
    if open_calls or open_pages:
        return False, f"OPEN: {said}: {', '.join(open_calls + open_pages)}"
    return True, f"{'metrics' if metrics else 'shut'}: {said}"


def main(hosts: list[str]) -> int:
    """Try every port of every host; return the exit code."""
    all_shut, tried = True, 0
    for host in hosts:
        for port in open_ports(host):
            if port == SSH:
                continue
            shut, said = verdict(host, port)
            all_shut, tried = all_shut and shut, tried + 1
            print(f"{host}:{port} {said}", flush=True)
    print(f"{tried} ports tried without the token, {'all shut' if all_shut else 'NOT ALL SHUT'}")
    return 0 if all_shut and tried else 1


if __name__ == "__main__":
    os.environ.pop("RAY_AUTH_MODE", None)
    sys.exit(main(sys.argv[1:]))
