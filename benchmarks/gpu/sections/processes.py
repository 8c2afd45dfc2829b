"""Sections ``processes`` and ``processes_mps``: several processes that train on one GPU, without and with MPS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.measuring import Captured, Card
from benchmarks.gpu.sections.machine import MPS_CONTROL, mps_control
from benchmarks.gpu.steps import new_step

ROOT = Path(__file__).resolve().parents[3]
START_S = 90.0
"""Seconds in which all workers must have started."""


def processes(check: Check, result: Result) -> None:
    """Measure the steps per second of 1, 2, 4 and 8 processes (on a CPU: 1 and 2), eager and as CUDA graphs."""
    _measure(check, result, os.environ)


def processes_mps(check: Check, result: Result) -> None:
    """Measure the same with the processes as clients of an MPS daemon."""
    with mps_daemon() as environment:
        _measure(check, result, environment)


@contextmanager
def mps_daemon() -> Iterator[Mapping[str, str]]:
    """Run an MPS daemon in a folder of its own; yield the environment of its clients."""
    control = mps_control() or MPS_CONTROL
    with tempfile.TemporaryDirectory() as folder:
        pipe, log = Path(folder, "pipe"), Path(folder, "log")
        pipe.mkdir()
        log.mkdir()
        environment = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(pipe), "CUDA_MPS_LOG_DIRECTORY": str(log)}
        subprocess.run([control, "-d"], env=environment, check=True, timeout=20)
        try:
            yield environment
        finally:
            subprocess.run([control], input=b"quit\n", env=environment, timeout=20, check=False)


def _measure(check: Check, result: Result, environment: Mapping[str, str]) -> None:
    cuda = check.card.is_cuda
    counts = (1, 2, 4, 8) if cuda else (1, 2)
    span_s = 1.5 if cuda else 0.3
    with ExitStack() as stack:
        start = time.monotonic()
        workers = [stack.enter_context(started(str(check.device), environment)) for _ in range(max(counts))]
        ready = [worker.answer("ready", START_S - (time.monotonic() - start)) for worker in workers]
        result["workers_started_s"] = round(time.monotonic() - start, 1)
        result["a_worker_started_s"] = ready[0]["seconds"]
        if cuda:
            free, total = torch.cuda.mem_get_info()
            result["GiB_used_by_all"] = round((total - free) / 2**30, 2)
        for way in ("eager", "graph") if cuda else ("eager",):
            into = result[way] = {}
            for count in counts:
                if check.has(15.0, into, str(count)):
                    into[str(count)] = together(workers[:count], way, span_s)


class Worker:
    """A process that trains on request. Requests and answers are files in its own folder."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process, self.folder = process, folder

    def ask(self, **task: Any) -> None:
        """Request a task; see :func:`work`."""
        write(self.folder / "task", task)

    def answer(self, name: str, seconds: float) -> dict[str, Any]:
        """Wait for the answer ``name`` and return it.

        Raises:
            RuntimeError: the worker died, or did not answer within ``seconds``.
        """
        end = time.monotonic() + seconds
        while (content := take(self.folder / name)) is None:
            if self.process.poll() is not None:
                raise RuntimeError(f"a worker died: {(self.folder / 'stderr').read_text()[-300:]}")
            if time.monotonic() > end:
                raise RuntimeError(f"a worker did not answer within {seconds:.0f} s ({name})")
            time.sleep(0.02)
        return content


@contextmanager
def started(device: str, environment: Mapping[str, str]) -> Iterator[Worker]:
    """Start a worker; terminate it on exit, or kill it if that takes too long."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "benchmarks.gpu", "--only", "machine", "--worker", name, "--device", device]
        with (folder / "stderr").open("wb") as errors:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=errors)
        try:
            yield Worker(process, folder)
        finally:
            process.terminate()  # handled between two steps: see main in benchmarks/gpu/__main__.py
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def together(workers: list[Worker], way: str, span_s: float) -> dict[str, float]:
    """Let all workers train in the same ``span_s`` seconds; return their total throughput."""
    begin = time.time() + 0.4
    for worker in workers:
        worker.ask(way=way, begin=begin, end=begin + span_s)
    steps = sum(worker.answer("done", span_s + 15.0)["steps"] for worker in workers)
    return {
        "steps_per_s": round(steps / span_s, 1),
        "ms_per_model_step": round(span_s / max(steps, 1) * 1e3, 4),
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a file atomically, so that the waiting process never reads half of it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.replace(path)


def take(path: Path) -> dict[str, Any] | None:
    """Read a file and delete it; None if there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    path.unlink()
    return content


def work(folder: Path, device: torch.device) -> None:
    """Run a worker until it is terminated or its parent has exited.

    A task has the keys ``way`` (``eager`` or ``graph``), ``begin`` and ``end`` (seconds since the epoch).
    """
    parent = os.getppid()
    card, start = Card(device), time.monotonic()
    step = new_step("dense", "resnet20s", device)
    for _ in range(3):
        step()
    card.wait()
    ways: dict[str, Callable[[], object]] = {"eager": step}
    if card.is_cuda:
        ways["graph"] = Captured(step)
    write(folder / "ready", {"seconds": round(time.monotonic() - start, 2)})
    while os.getppid() == parent:
        task = take(folder / "task")
        if task is not None:
            write(folder / "done", {"steps": _steps(card, ways[task["way"]], task["begin"], task["end"])})
        time.sleep(0.01)


def _steps(card: Card, call: Callable[[], object], begin: float, end: float) -> int:
    steps, at_once = 0, 5 if card.is_cuda else 1
    time.sleep(max(0.0, begin - time.time()))
    while time.time() < end:
        for _ in range(at_once):
            call()
        card.wait()
        steps += at_once
    return steps
