"""A CUDA graph keeps addresses, not tensors: what a captured step reads must be held elsewhere until its last replay.

The graph of these tests notes the memory that a step was given when it was captured, without holding it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from tests.trials.recorded_graph import RecordedGraph, Recorder, graphs_made
from tests.trials.small_trials import CONFIGS, config_of, run_in
from trials.methods.base import TrainStage
from trials.training import launches

pytestmark = pytest.mark.usefixtures("few_digits")

BATCH = 36

LONGER = {"update_reg_interval": 3, "reg_granularity_prune": 0.2, "stabilize_reg_interval": 8}


class WeakGraph(RecordedGraph):
    """Replays by running the function; ``lost``: replays at which memory that was read at the capture was gone."""

    def __init__(self, generators: tuple[torch.Generator, ...] = ()) -> None:
        super().__init__(generators)
        self.given: list[StorageWeakRef] = []
        self.lost = 0

    def capture(self, function: Callable[[], None]) -> None:
        self.captures += 1
        recorder = Recorder([])
        with torch.random.fork_rng(devices=[]), recorder:
            function()
        recorder.put_back()
        self.given = [StorageWeakRef(storage) for storage, _ in recorder.before.values()]
        self.function = function

    def replay(self) -> None:
        self.replays += 1
        self.lost += any(storage.expired() for storage in self.given)
        self.function()

    def reset(self) -> None:
        self.given = []


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[WeakGraph]:
    made: list[WeakGraph] = graphs_made(monkeypatch, WeakGraph)
    monkeypatch.setattr(launches, "few_launches", lambda device: True)
    return made


def run(name: str, tmp_path: Path, **fields: Any) -> None:
    recipes = {key: value for key, value in CONFIGS[name].items() if isinstance(value, dict) and "epochs" in value}
    small = {key: {**value, "batch_size": BATCH} for key, value in recipes.items()}
    assert run_in(tmp_path, config_of(name, **small, **fields)).status == "complete"


KINDS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("imp-weights", "bip", "bip-channel", "hydra-nm", "adaptive_sparsity-cut", "regrow")),
    *((name, {"memory_format": "channels_last"}) for name in ("bip-both", "hydra")),
    ("greg1", {**LONGER, "prune": {"batch_size": BATCH}}),
    ("one_shot", {"precision": "bf16", "report": "best_val"}),
]


@pytest.mark.parametrize(("name", "fields"), KINDS, ids=[f"{name}-{'-'.join(more)}" for name, more in KINDS])
def test_what_a_captured_step_reads_is_held(
    name: str, fields: dict[str, Any], tmp_path: Path, graphs: list[WeakGraph]
) -> None:
    run(name, tmp_path, **fields)
    assert sum(graph.replays for graph in graphs) > 10
    assert not any(graph.lost for graph in graphs)


def test_a_tensor_that_is_replaced_is_noticed(
    tmp_path: Path, graphs: list[WeakGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(self: TrainStage) -> bool:
        self.net.set_masks(self.net.masks)  # in new tensors
        return True

    monkeypatch.setattr(TrainStage, "prepare", prepare)
    run("one_shot", tmp_path)
    assert any(graph.lost for graph in graphs)
