"""``--serve``: who is answered, with what, and what is never given."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.report import live_page, served
from sweeper.search.plan import Plan
from tests.sweeper.command_line import wrong
from tests.sweeper.on_ray import ROOT
from tests.sweeper.report.serving import Served, begun_sweep, one_more, serving
from tests.sweeper.sweeps import run_space, searching
from tests.trials.processes import wait_for


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A sweep of which one trial has ended."""
    return begun_sweep(tmp_path / "small")


@pytest.fixture
def page(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    yield from serving(plan.folder.path, monkeypatch)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests that only ask: its sweep does not change."""
    plan = begun_sweep(tmp_path_factory.mktemp("still") / "small")
    with pytest.MonkeyPatch.context() as patch:
        yield from serving(plan.folder.path, patch)


def test_the_page_and_its_parts_are_given_and_follow_the_sweep(page: Served, plan: Plan) -> None:
    status, headers, body = page.ask(f"/?token={page.token}")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"parts.json?token={page.token}" in body.decode()
    path = f"/parts.json?token={page.token}"
    status, headers, body = page.ask(path)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert "1 done" in json.loads(body)["sections"]["state"]
    tag = headers["etag"]
    assert page.ask(path, If_None_Match=tag) == (304, {**_kept(headers), "etag": tag}, b"")
    one_more(plan)
    wait_for(lambda: page.ask(path, If_None_Match=tag)[0] == 200, "the next row")
    assert "2 done" in page.parts()["sections"]["state"]
    assert page.parts()["live"]["url"] == path[1:]
    assert page.parts()["problem"] is None
    assert "2 done" in page.ask(f"/?token={page.token}")[2].decode()


def _kept(headers: dict[str, str]) -> dict[str, str]:
    """The headers of an answer without content."""
    return {name: value for name, value in headers.items() if name not in ("content-length", "content-type", "vary")}


def test_answers_are_compressed_for_those_who_take_it(still: Served) -> None:
    path = f"/parts.json?token={still.token}"
    _, headers, body = still.ask(path, Accept_Encoding="br, gzip")
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == still.ask(path)[2] == still.ask(path, Accept_Encoding="gzip;q=0")[2]
    assert int(headers["content-length"]) == len(body)


def test_head_gives_the_headers_alone(still: Served) -> None:
    _, headers, body = still.ask(f"/?token={still.token}")
    assert still.ask(f"/?token={still.token}", "HEAD") == (200, headers, b"")
    assert int(headers["content-length"]) == len(body)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:9999", "localhost", "LocalHost:8088", "[::1]:1", " localhost:80 "]
)
def test_names_of_this_machine_are_answered(still: Served, host: str) -> None:
    """Also at the other end of a forwarded port, which may have another number."""
    assert still.ask(f"/?token={still.token}", host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "localhost.evil",
     "evil.example/127.0.0.1", "127.0.0.1:80:80", "127.0.0.1:", "0.0.0.0", "127.0.0.2", "[::2]", "2130706433",
     "127.0.0.\uff11"],
)  # fmt: skip
def test_other_names_are_refused(still: Served, host: str | None) -> None:
    given = host if host is None or host.isascii() else host.encode().decode("latin-1")
    status, _, body = still.ask(f"/?token={still.token}", host=given)
    assert status == 421
    assert body == b"this server answers to 127.0.0.1 and localhost only\n"


def test_two_names_are_refused(still: Served) -> None:
    assert b" 421 " in raw(
        still, f"GET /?token={still.token} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    )


@pytest.mark.parametrize("path", ["/", "/parts.json"])
def test_without_the_token_nothing_is_given(still: Served, path: str) -> None:
    token = still.token
    given = ["", "token=", f"token={token[:-1]}", f"token={token}x", f"token={token.swapcase()}", f"Token={token}"]
    given += [f"token={token}&token={token}", "token=%C3%A9", f"#token={token}", "token=%80", f"token={token}%00"]
    for query in given:
        status, _, body = still.ask(f"{path}?{query}")
        assert (status, body) == (403, b"open the address that the command has printed, with its token\n"), query
    assert still.ask(path, Cookie=f"token={token}", Authorization=f"Bearer {token}")[0] == 403


def test_tokens_are_long_and_new_each_time(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = set()
    for _ in range(2):
        with monkeypatch.context() as patch:
            for page in serving(plan.folder.path, patch):
                tokens.add(page.token)
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 32


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get"])
def test_other_methods_are_refused(still: Served, method: str) -> None:
    status, headers, _ = still.ask(f"/?token={still.token}", method)
    assert (status, headers["allow"], headers["connection"]) == (405, "GET, HEAD", "close")


@pytest.mark.parametrize(
    "path",
    ["/sweep.yaml", "/report.html", "/trials/", "/tables/trials.parquet", "/../small/sweep.yaml", "/%2e%2e/sweep.yaml",
     "//etc/passwd", "/etc/passwd", "/parts.json/", "/parts.json/..", "/favicon.ico", "/.", "/;", "http://evil.example/",
     "http://127.0.0.1/", "//127.0.0.1/", "/parts.json%00", "*", "/\\..\\sweep.yaml"],
)  # fmt: skip
def test_there_is_no_other_page_and_no_file(still: Served, path: str) -> None:
    status, _, body = still.ask(f"{path}?token={still.token}")
    assert (status, body) == (404, b"there is no such page\n")


HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "server": "sparsity-sweep",
}


def raw(still: Served, text: str) -> bytes:
    """What comes back on a connection on which ``text`` was sent, until the server closes it."""
    with socket.create_connection(("127.0.0.1", still.port), timeout=10) as connection:
        connection.sendall(text.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_what_is_no_address_is_refused(still: Served) -> None:
    answer = raw(still, f"GET http://[?token={still.token} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b" 400 " in answer
    assert answer.endswith(b"that is no address\n")


def test_every_answer_has_the_headers(still: Served) -> None:
    paths = [f"/?token={still.token}", f"/parts.json?token={still.token}", "/", f"/x?token={still.token}"]
    answers = [still.ask(path, method) for path in paths for method in ("GET", "HEAD", "POST")]
    for status, headers, _ in [*answers, still.ask("/", host="evil.example")]:
        assert HEADERS.items() <= headers.items(), status
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert not {"access-control-allow-origin", "set-cookie"} & headers.keys()
    too_long = raw(still, f"GET /{'x' * 70_000} HTTP/1.1\r\n\r\n").lower()
    assert b" 414 " in too_long
    assert all(f"{name}: {value}".lower().encode() in too_long for name, value in HEADERS.items())
    for text in ("nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /\r\n\r\n"):  # as old as HTTP/0.9, without headers
        assert raw(still, text).count(b"\n") == 1, text


def test_a_body_is_not_taken_for_the_next_request(still: Served) -> None:
    inner = f"GET /?token={still.token} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = raw(still, f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(inner)}\r\n\r\n{inner}")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b" 405 " in answer


def test_it_listens_on_the_loopback_only(still: Served) -> None:
    assert still.server.server_address[0] == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", still.port), timeout=2):
        pass


def test_a_storage_that_is_away_for_a_while_is_said_once(
    page: Served, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps, away = SweepFolder.stamps, [True]

    def maybe(folder: SweepFolder) -> Any:
        if away[0]:
            raise OSError("Stale file handle")
        return stamps(folder)

    monkeypatch.setattr(SweepFolder, "stamps", maybe)
    wait_for(lambda: page.parts()["problem"], "the page to know")
    assert page.parts()["problem"] == "Stale file handle"
    assert "1 done" in page.parts()["sections"]["state"]
    time.sleep(0.1)
    assert page.printed().count("could not be read") == 1
    assert "small could not be read (Stale file handle): what is shown is not up to date" in page.printed()
    away[0] = False
    wait_for(lambda: page.parts()["problem"] is None, "the page to be up to date")
    one_more(plan)
    wait_for(lambda: "2 done" in page.parts()["sections"]["state"], "the next row")


def test_nothing_is_read_while_nobody_asks(page: Served, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps, looks = SweepFolder.stamps, list[float]()
    monkeypatch.setattr(live_page, "IDLE_AFTER_S", 0.1)
    monkeypatch.setattr(SweepFolder, "stamps", lambda folder: looks.append(time.monotonic()) or stamps(folder))
    page.parts()
    wait_for(lambda: looks and time.monotonic() - looks[-1] > 0.4, "the looks to end")
    one_more(plan)  # the first one who asks again is not given old rows
    count = len(looks)
    time.sleep(0.2)
    assert len(looks) == count
    assert "2 done" in page.ask(f"/?token={page.token}")[2].decode()


def test_another_port_is_taken_where_the_usual_one_is_not_free(plan: Plan) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        source = served.LiveSource("parts.json", 1.0)
        page = live_page.LivePage(plan.folder.path, source, lambda line: None)
        server = served._bound(page, "token", taken.getsockname()[1])
        assert server.server_port not in (0, taken.getsockname()[1])
        server.server_close()
        assert page.end(5)


def test_what_is_no_sweep_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wrong(capsys, ["--storage", str(tmp_path), "--serve", "nothing"], "is not a sweep's folder")


def test_over_ssh_the_line_that_forwards_is_printed(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 50000 10.0.0.2 22")
    for page in serving(plan.folder.path, monkeypatch):
        assert f"ssh -L {page.port}:127.0.0.1:{page.port} " in page.printed()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_while_a_page_asks(tmp_path: Path, number: signal.Signals) -> None:
    run_space(searching("random", 2), tmp_path / "small")
    command = [sys.executable, "-m", "sweeper", "--storage", str(tmp_path), "--serve", "small"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)(/\?token=\S+) shows small; Ctrl-C ends it", line)
        assert found is not None, line
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
        for _ in range(3):  # the connection stays open
            connection.request("GET", found[2].replace("/?", "/parts.json?"))
            assert connection.getresponse().read()
        began = time.monotonic()
        process.send_signal(number)
        said, errors = process.communicate(timeout=20)
        assert time.monotonic() - began < 10  # a connection that stays open would be waited for a minute
        connection.close()
    assert (process.returncode, said, errors) == (0, "ended\n", "")
