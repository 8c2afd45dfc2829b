"""A sweep that grows trial by trial, and a server of its report in this process."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeper.report import live_page, served
from sweeper.search.plan import Plan
from tests.sweeper.sweeps import begun, searching
from tests.trials.processes import wait_for
from trials.storage.trial_folder import TrialFolder


def begun_sweep(path: Path) -> Plan:
    """A sweep of six trials in two cells, of which one has ended."""
    space = searching("random", 3)
    plan = begun(space, path)
    plan.folder.append({"space": space.document()})
    one_more(plan)
    return plan


def one_more(plan: Plan) -> str:
    """End the sweep's next trial, and return its id."""
    assignment = plan.next()
    assert assignment is not None
    attempt, _ = TrialFolder(plan.folder.trial_folder(assignment.trial_id)).begin(device="cpu")
    density = assignment.config.density
    accuracy = 0.9 + 0.01 * len(plan.folder.records())
    epochs = [
        {"stage": "finetune", "level": 0, "epoch": n, "val_accuracy": accuracy - 0.1 / n, "density": density}
        for n in (1, 2, 3)
    ]
    layers = [
        {"stage": "finetune", "level": 0, "layer": "fc", "total": 100, "kept": round(100 * density), "density": density}
    ]
    result = {"val_accuracy": accuracy, "test_accuracy": accuracy - 0.05, "density": density}
    rows = {"epochs": epochs, "layers": layers}
    attempt.commit(checkpoint={}, rows=rows, progress={}, seconds=1.0, status="complete", result=result)
    plan.ended(assignment.trial_id)
    return str(assignment.trial_id)


@dataclass
class Served:
    """A server at work in this process, and what it has printed."""

    port: int
    token: str
    printed: Callable[[], str]
    server: served.ReportServer

    def ask(
        self, path: str, method: str = "GET", *, host: str | None = "127.0.0.1", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """The answer to one request: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            if host is not None:
                connection.putheader("Host", host)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def parts(self) -> dict[str, Any]:
        """The parts as they are now."""
        found: dict[str, Any] = json.loads(self.ask(f"/parts.json?token={self.token}")[2])
        return found


def serving(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    servers: list[served.ReportServer] = []
    bound = served._bound
    monkeypatch.setattr(served, "_bound", lambda *given: servers.append(bound(*given)) or servers[-1])
    monkeypatch.setattr(live_page, "LOOK_EVERY_S", 0.02)
    printed: list[str] = []

    class Lines:
        def write(self, text: str) -> None:
            printed.append(text)

        def flush(self) -> None:
            pass

    console = Console(file=Lines(), width=10_000)  # type: ignore[arg-type]
    thread = threading.Thread(target=served.serve_report, args=(path, console), kwargs={"port": 0})
    thread.start()
    wait_for(lambda: "shows" in "".join(printed), "the server to start")
    found = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+) ", "".join(printed))
    assert found is not None
    try:
        yield Served(int(found[1]), found[2], lambda: "".join(printed), servers[0])
    finally:
        servers[0].shutdown()
        thread.join(10)
    assert not thread.is_alive()
