"""Which cluster a run joins, asked before Ray is: Ray itself waits for minutes, or ends in a traceback."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import grpc
import ray
from ray._common.network_utils import parse_address
from ray._common.utils import get_ray_address_file
from ray._private import ray_constants, services
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.gcs_utils import create_gcs_channel
from ray._private.utils import check_version_info, compute_version_info
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from trials.errors import UserError, one_line

ANSWER_S = 10.0
"""Seconds in which a cluster's head must have answered."""

HERE_S = 5.0
"""Seconds in which a process of the cluster must be found on this machine, which may have joined it just now."""

HTTP2_SETTINGS = b"\x04"
"""Kind of the frame with which an HTTP/2 server begins."""

HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + HTTP2_SETTINGS + b"\0\0\0\0\0"
"""With what an HTTP/2 client begins."""

LOCAL = "give --address local to start a Ray here"

_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
"""What gRPC says of a port where something else than the head of a Ray cluster listens."""


class _NotThere(Exception):
    """No cluster with a part on this machine is at the address; the message says what is found instead."""


class _Silent(Exception):
    """What listens at the address does not answer: it may be a cluster that is very busy, or stopped."""


def cluster_to_join(address: str | None, note: Callable[[str], None]) -> str | None:
    """Return the address HOST:PORT of the cluster to join; None to start a Ray on this machine.

    A cluster that only Ray's file ``ray_current_cluster`` names may be gone: then a Ray is started here, and ``note``
    is told so.

    Args:
        address: as ``--address``; None and ``auto`` stand for RAY_ADDRESS, or else for what the file names.

    Raises:
        UserError: no cluster can be joined there within 10 s; the message says why, and what to do.
    """
    named = address if address not in (None, "auto") else os.environ.get("RAY_ADDRESS") or None
    if named == "local":
        return None
    said = f"{'--address' if named == address else 'RAY_ADDRESS'} is {named!r}"
    if named in (None, "auto"):
        return _noted(note, must=address == "auto")
    try:
        return _require_joinable(_host_and_port(named), said)
    except (_NotThere, _Silent) as why:
        other = f"give another, or {LOCAL.removeprefix('give ')}"
        raise UserError(f"{said}, but no Ray cluster can be joined there: {why}; {other}") from None


def _host_and_port(named: str) -> str:
    parsed = parse_address(named)
    if "/" in named or parsed is None or not parsed[0] or not parsed[1].isdigit() or not 0 < int(parsed[1]) < 65536:
        raise _NotThere("an address is HOST:PORT, as of ray start --head --port=6379")
    try:
        return str(services.canonicalize_bootstrap_address(named))
    except (OSError, ValueError) as error:
        raise _NotThere(one_line(str(error))) from None


def _noted(note: Callable[[str], None], *, must: bool) -> str | None:
    """The cluster that Ray has noted as this machine's, if it is there."""
    file = get_ray_address_file(None)
    services.find_gcs_addresses.cache_clear()
    try:
        found = services.canonicalize_bootstrap_address("auto" if must else None)
    except (ConnectionError, ValueError, OSError) as error:
        found, reason = None, one_line(str(error))
        if not must:
            note(f"{file} names no cluster that can be joined ({reason}): a Ray is started here")
    if found is None:
        if must:
            raise UserError(f"--address is 'auto', but no Ray cluster runs on this machine: {LOCAL}, or give HOST:PORT")
        return None
    said = f"{file} says that this machine belongs to the Ray cluster at {found}"
    try:
        return _require_joinable(found, said)
    except _NotThere as why:
        if must:
            raise UserError(f"--address is 'auto', and {said}, but it cannot be joined: {why}; {LOCAL}") from None
        note(f"{said}, but {why}: a Ray is started here")
        return None
    except _Silent as why:
        raise UserError(f"{said}, but {why}: {LOCAL}, or end that one (ray stop --force)") from None


def _require_joinable(where: str, said: str) -> str:
    """Check that the head of a cluster with this machine answers at ``where``, of this version; returns ``where``.

    Raises:
        UserError: it has another version, or needs a token that is not here, or knows none.
    """
    end = time.monotonic() + ANSWER_S
    _require_listener(where)
    head = _Head(where, said, end)
    head.require_version()
    head.require_part_here()
    return where


def _require_listener(where: str) -> None:
    """Check that what listens there speaks HTTP/2, as gRPC does: gRPC itself would wait for it."""
    host, _, port = where.rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S / 2)
    except TimeoutError:
        raise _NotThere(f"nothing answers at {where} (a firewall may drop what is sent there)") from None
    except (OSError, OverflowError) as error:
        raise _NotThere(f"nothing answers at {where} ({error})") from None
    with connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return
        try:
            connection.sendall(HTTP2_HELLO)
            found = connection.recv(9)
        except TimeoutError:
            raise _Silent(f"what listens at {where} does not answer") from None
        except OSError:  # it has closed the connection
            found = b""
    if found[3:4] != HTTP2_SETTINGS:
        raise _NotThere(f"what listens at {where} is not the head of a Ray cluster")


def _has_token() -> bool:
    return bool(ray._raylet.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))


class _Head:
    """What answers at the address of a cluster's head; ``end`` is when it must have done so."""

    def __init__(self, where: str, said: str, end: float) -> None:
        self.where, self.said, self.end = where, said, end

    def require_version(self) -> None:
        """Check that the head runs this version of Ray and Python."""
        request = gcs_service_pb2.InternalKVGetRequest(
            key=b"CLUSTER_METADATA", namespace=ray_constants.KV_NAMESPACE_CLUSTER
        )
        answer = self._ask("InternalKVGcsService", "InternalKVGet", request)
        try:
            metadata = json.loads(answer.value)
            there = f"Ray {metadata['ray_version']} and Python {metadata['python_version']}"
        except (ValueError, KeyError, TypeError):
            return  # it does not say
        try:
            check_version_info(metadata, "this machine")
        except RuntimeError:
            here = "Ray {} and Python {}".format(*compute_version_info())
            raise UserError(
                f"{self.said}, which runs {there}, but this command runs {here}: both must be the same; install them "
                f"here or there, or {LOCAL}"
            ) from None

    def require_part_here(self) -> None:
        """Check that one of the cluster's nodes is this machine."""
        end = min(self.end, time.monotonic() + HERE_S)
        request = gcs_service_pb2.GetAllNodeInfoRequest()
        while True:
            here = services.find_node_ids()
            nodes = self._ask("NodeInfoGcsService", "GetAllNodeInfo", request).node_info_list if here else ()
            if any(node.node_id.hex() in here and node.state == node.ALIVE for node in nodes):
                return
            if time.monotonic() > end:
                raise _NotThere(
                    f"this machine ({socket.gethostname()}) is none of that cluster's: add it (ray start --address="
                    f"{self.where}), or run the command on one of them"
                )
            time.sleep(0.5)

    def _ask(self, service: str, method: str, request: Any) -> Any:
        """What the head answers, with the token of this machine if the head wants one."""
        try:
            return self._call(service, method, request)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAUTHENTICATED:
                raise self._why(error) from None
            if os.environ.get("RAY_AUTH_MODE") is not None or not maybe_enable_token_auth_if_token_available(False):
                raise self._without_token() from None
        try:
            return self._call(service, method, request)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise self._without_token() from None
            raise self._why(error) from None

    def _call(self, service: str, method: str, request: Any) -> Any:
        with closing(create_gcs_channel(self.where)) as channel:
            stub = getattr(gcs_service_pb2_grpc, f"{service}Stub")(channel)
            return getattr(stub, method)(request, timeout=max(self.end - time.monotonic(), 0.1))

    def _why(self, error: grpc.RpcError) -> Exception:
        if error.code() in _GONE:
            return _NotThere(f"what listens at {self.where} is not the head of a Ray cluster")
        return _Silent(f"what listens at {self.where} does not answer within {ANSWER_S:g} s")

    def _without_token(self) -> UserError:
        mode = os.environ.get("RAY_AUTH_MODE", "")
        if mode.lower() != "token" and mode:
            why, way_out = f"RAY_AUTH_MODE is {mode!r} here", "unset it"
        elif _has_token():
            why, way_out = "refuses the one that this machine has", "copy its ~/.ray/auth_token here"
        else:
            why, way_out = "this machine has none", "copy its ~/.ray/auth_token here"
        return UserError(f"{self.said}, whose cluster wants a token, but {why}: {way_out} (mode 600), or {LOCAL}")
