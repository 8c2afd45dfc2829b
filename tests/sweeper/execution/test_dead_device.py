"""A worker whose device died: what it reports, what it does not begin, and pieces of a trial in other processes."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeper.execution.assigned_trial import run_assigned
from sweeper.execution.on_ray.parallel_tasks import parallel_map
from tests.trials.folders import state_of
from trials.errors import DEAD_DEVICE, OUT_OF_MEMORY, DeadDevice
from trials.running import trial
from trials.storage.trial_folder import TrialFolder
from trials.training import device, graphs
from trials.training.graphs import Program

pytestmark = pytest.mark.fault("device-dead")

WHERE = {"node": "0a", "machine": "worker7", "card": "3"}


def dead(*_: Any) -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.fixture
def assignment(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / "config.json").touch()
    config = {"method": "adaptive_sparsity", "starget": 0.5, "dataset": "digits", "model": "tiny"}
    where = {"folder": str(tmp_path / "trial"), "stages": str(tmp_path / "stages"), "stop": str(tmp_path / "stop")}
    told = {"threads": 1, "gpu": 0, "pieces": 1, "alone": True, "alive_every_s": 30.0, "avoid": []}
    return {"trial": "it", "config": {**config, "train": {"epochs": 1}}, **told, **where}


def test_every_message_says_where_it_comes_from(assignment: dict[str, Any]) -> None:
    sent: list[dict[str, Any]] = []
    assert run_assigned(assignment, sent.append, where=WHERE)
    assert sent[0] == {"trial": "it", **WHERE, "alive": True}
    assert sent[-1] == {"trial": "it", **WHERE, "status": "complete"}


def test_a_process_whose_device_dies_in_a_trial_runs_no_other(
    assignment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []

    def train_epoch(self: Any, *arguments: Any) -> None:
        monkeypatch.setattr(device, "touch", dead)
        dead()

    monkeypatch.setattr(trial.StageRun, "train_epoch", train_epoch)
    assert not run_assigned(assignment, sent.append, where=WHERE)
    assert sent[-1] == {"trial": "it", **WHERE, "status": "failed"}
    state = state_of(tmp_path / "trial")
    assert state.error is not None
    assert (state.error["type"], state.failures) == (DEAD_DEVICE, 0)
    assert not run_assigned(assignment, sent.append, where=WHERE)
    assert sent[-1] == {"trial": "it", **WHERE, "dead": True}
    assert state_of(tmp_path / "trial").attempt == 1  # it did not begin there


def test_a_trial_that_cannot_begin_on_a_dead_device_has_not_failed(
    assignment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*_: Any) -> None:
        monkeypatch.setattr(device, "touch", dead)
        dead()

    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(trial, "environment_of", begin)
    assert not run_assigned(assignment, sent.append)
    assert sent[-1] == {"trial": "it", "dead": True}
    assert TrialFolder(tmp_path / "trial").state() is None


def test_a_process_that_failed_to_capture_a_step_runs_no_other_trial(
    assignment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial itself has failed: its step waits for the device. What the capture had begun stays in the process."""

    @contextmanager
    def capturing(*_: Any, **__: Any) -> Iterator[None]:
        yield
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def train_epoch(self: Any, *arguments: Any) -> None:
        Program(lambda: None, graphs.CudaGraph(torch.device("cuda")), "a step", warm_up=0).run()

    monkeypatch.setattr(graphs, "_capture_failed", threading.Event())
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    for lazy in ("_graph", "_stream"):
        monkeypatch.setattr(graphs.CudaGraph, lazy, None)
    monkeypatch.setattr(trial.StageRun, "train_epoch", train_epoch)
    assert not run_assigned(assignment, lambda message: None)
    state = state_of(tmp_path / "trial")
    assert state.error is not None
    assert "a step cannot be captured as a CUDA graph" in state.error["message"]
    assert (state.error["type"], state.failures) == ("RuntimeError", 1)


@pytest.mark.parametrize("alone", [True, False])
def test_a_trial_that_finds_no_room_on_a_crowded_card_is_tried_again_alone(
    alone: bool, assignment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trial, "environment_of", begin)
    assert run_assigned({**assignment, "alone": alone}, lambda message: None)
    state = state_of(tmp_path / "trial")
    assert state.error is not None
    assert (state.error["type"], state.failures) == (OUT_OF_MEMORY, int(alone))


def test_a_trial_does_not_run_on_the_cpu_because_its_card_has_vanished(
    assignment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr("torch.version.cuda", "13.2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert not run_assigned({**assignment, "gpu": 0.5}, sent.append)
    assert sent[-1] == {"trial": "it", "dead": True}
    assert TrialFolder(tmp_path / "trial").state() is None


def test_a_worker_keeps_nothing_of_a_trial_that_ran_out_of_memory(
    assignment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[Any]] = []

    def full(self: Any, *arguments: Any) -> None:
        kept.extend(weakref.ref(one) for one in (self.net, *self.net.model.parameters()))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(trial.StageRun, "train_epoch", full)
    gc.disable()  # what only a later collection would free is not free when the next trial begins
    try:
        assert run_assigned(assignment, lambda message: None)
        assert kept
        assert [what for what in (known() for known in kept) if what is not None] == []
    finally:
        gc.enable()


def piece(folder: Path, item: str, should_stop: Callable[[], bool]) -> int:
    """Fails where ``item`` says so, and with ``dies``, the device of its process no longer answers."""
    if item == "dies":
        device.touch = dead
    if item in ("dies", "fails"):
        raise ValueError(item)
    return os.getpid()


@pytest.mark.usefixtures("ray")
def test_a_piece_whose_device_dies_says_so_and_its_process_runs_no_other(tmp_path: Path) -> None:
    mapping = parallel_map({"CPU": 1.0}, lambda: False)
    with pytest.raises(ValueError, match="fails"):
        mapping(piece, tmp_path, ["here", "fails"])
    with pytest.raises(DeadDevice, match=r"a piece of it on .* lost its device after ValueError: dies") as raised:
        mapping(piece, tmp_path, ["here", "dies"])
    assert set(raised.value.where) == {"node", "machine", "card"}
    assert len(raised.value.where["node"]) > 20
    here, there = mapping(piece, tmp_path, ["here", "there"])  # in another process
    assert here != there
