"""Captured and replayed steps give bit-identical results to eager steps.

The tests use a graph that records operators on the CPU (see recorded_graph.py), not a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tests.trials.folders import assert_same_outcome
from tests.trials.recorded_graph import RecordedGraph, graphs_made
from tests.trials.small_trials import CONFIGS, config_of, folder_of, run_in
from trials.config.trial_config import TrialConfig
from trials.data import OnDevice
from trials.methods import segments
from trials.methods.base import Stage
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.models import MODELS, build
from trials.running import progress
from trials.running.captured import Captured, Eager, stepper
from trials.training import graphs as graphs_file
from trials.training import launches
from trials.training.graphs import WARM_UP, CudaGraph, graph_for
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")

BATCH = 64
FULL = 5
"""Full batches of ``few_digits`` in an epoch: 360 images in batches of 64. 40 images remain."""

CAPTURES = {
    "adaptive_sparsity.TrainWithThresholds": True,
    "allocate_stage.Regrow": False,
    "base.TrainStage": True,
    "bip.Bilevel": True,
    "drop.DropThenTrain": True,
    "dwp.Transfer": True,  # it has no steps
    "finetune.FinetuneStage": True,
    "finetuning.FinetuneRegrown": True,
    "finetuning.TrainUnderCut": True,
    "greg1.Greg1Stage": True,
    "greg2.Greg2Stage": True,
    "hydra.TrainScores": True,
    "imp.ImpLevel": True,
    "l1.PickAndRemove": True,
    "one_shot.PruneThenTrain": True,
    "oracle.Choose": False,
    "prune_iterative.PruneLevel": True,
    "regrow_iterative.RegrowDeciding": False,
    "removal.RemoveThenTrain": True,
    "single_layer.TryLayers": False,
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of trials that run eagerly."""
    return tmp_path_factory.mktemp("eager")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """Captures steps on the CPU, with the branches that a GPU takes there; lists the graphs made."""
    made: list[RecordedGraph] = graphs_made(monkeypatch)
    monkeypatch.setattr(launches, "few_launches", lambda device: True)
    return made


def trained(graphs: list[RecordedGraph]) -> list[RecordedGraph]:
    """The graphs of training steps; those of evaluations are not warmed up as long."""
    return [graph for graph in graphs if graph.warmed_up == WARM_UP]


def config(name: str, **fields: Any) -> TrialConfig:
    """A config of small_trials.py whose recipes have batches of 64."""
    recipes = {key: value for key, value in CONFIGS[name].items() if isinstance(value, dict) and "epochs" in value}
    return config_of(name, **{**{key: {**value, "batch_size": BATCH} for key, value in recipes.items()}, **fields})


LONGER = {"update_reg_interval": 3, "reg_granularity_prune": 0.2, "stabilize_reg_interval": 8}
LONGER |= {"prune": {"batch_size": BATCH}}
"""GReg's penalty in steps enough to be captured: it updates within replays and ends within an epoch."""

BACKWARD: list[dict[str, Any]] = [
    {"p_bern": 0.5},
    {"p_bern": 0.7, "pattern": "kernel", "refresh_every": 3},
]

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, LONGER) for name in ("greg1", "greg1-weight-original", "greg2-channel")),
    *((name, {}) for name in ("dense", "one_shot", "imp-weights", "bip", "bip-channel", "bip-both", "hydra")),
    *((name, {}) for name in ("hydra-filter-original", "prune_iterative", "finetune", "adaptive_sparsity", "l1")),
    *((name, {}) for name in ("adaptive_sparsity-fixed", "adaptive_sparsity-cut", "one_shot-nm", "bip-nm", "hydra-nm")),
    ("bip", {"implicit_gradient": "code", "batchnorm": "both", "redundant_forwards": True, "accelerate": True}),
    ("bip", {"memory_format": "channels_last"}),
    *((name, {"precision": "bf16"}) for name in ("dense", "bip-both", "hydra", "adaptive_sparsity")),
    ("one_shot", {"precision": "bf16", "memory_format": "channels_last"}),
    *((name, {"model": "with_dropout"}) for name in ("dense", "bip")),
    ("imp-weights", {"augment": False}),
    *((name, {}) for name in ("greg1", "greg2-channel", "gradient_prune", "regrow")),
    *(("dense", {"train": {"epochs": 2, "batch_size": BATCH, "backward": backward}}) for backward in BACKWARD),
    ("bip", {"prune": {"epochs": 2, "batch_size": BATCH, "backward": {"p_bern": 0.5, "refresh_every": 4}}}),
]


@pytest.fixture(autouse=True)
def _dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_dropout(*, num_classes: int, in_channels: int) -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.Dropout2d(0.2)),
            *(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4 * 36, num_classes)),
        )

    monkeypatch.setitem(MODELS, "with_dropout", with_dropout)


@pytest.mark.parametrize(("name", "fields"), CASES, ids=[f"{name}-{'-'.join(more)}" for name, more in CASES])
def test_replayed_steps_give_the_same_results(
    name: str, fields: dict[str, Any], storage: Path, tmp_path: Path, graphs: list[RecordedGraph]
) -> None:
    whole = config(name, **fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs_file, "graph_for", lambda device, generators=(): None)
        assert run_in(storage, whole).status == "complete"
    assert not graphs
    state = run_in(tmp_path, whole)
    assert state.status == "complete", state.error
    assert_same_outcome(folder_of(whole, tmp_path), folder_of(whole, storage))
    assert all(graph.captures == 1 for graph in graphs if graph.replays)
    assert sum(graph.replays for graph in trained(graphs)) >= 2 * FULL - WARM_UP


def test_batches_that_come_from_the_host_are_copied_into_the_captured_step(
    storage: Path, tmp_path: Path, graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config("bip")
    with monkeypatch.context() as patch:
        patch.setattr(graphs_file, "graph_for", lambda device, generators=(): None)
        run_in(storage, whole)
    monkeypatch.setattr(OnDevice, "fixed_batches", lambda self, split, size, augment=False: None)
    run_in(tmp_path, whole)
    assert_same_outcome(folder_of(whole, tmp_path), folder_of(whole, storage))
    assert len(graphs) == len(trained(graphs)) + 1  # evaluations are not captured, which one of them shows
    assert sum(graph.replays for graph in trained(graphs)) >= 2 * FULL - WARM_UP


def test_smaller_batches_than_an_epoch_and_larger_ones(tmp_path: Path, graphs: list[RecordedGraph]) -> None:
    """72 images of 360 divide an epoch; 361 are more than there are; 36 + 324 leave one."""
    for size, expected in ((72, (WARM_UP, 1, 2 * 5 - WARM_UP)), (361, (0, 0, 0)), (180, (WARM_UP, 1, 1))):
        graphs.clear()
        dense = config_of("dense", train={"epochs": 2, "batch_size": size})
        assert run_in(tmp_path, dense).status == "complete"
        graph = graphs[0]
        assert (graph.warmed_up, graph.captures, graph.replays) == expected


PLACES = ["dense", "imp-weights", "bip", "bip-channel", "hydra", "adaptive_sparsity", "prune_iterative", "l1"]


@pytest.mark.parametrize("name", PLACES)
def test_what_a_captured_step_reads_stays_where_it_is(
    name: str, tmp_path: Path, graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a stage's first replay to its last, no tensor of network, masks, stage, sums or batches moves."""
    seen: dict[object, set[tuple[int, ...]]] = {}  # by program, held so that no other takes its place in memory
    original = Captured._advance

    def note(self: Captured, function: Callable[[], None], images: int) -> None:
        original(self, function, images)
        if self.program is not None and self.program.captured:
            state = (self.net.model.state_dict(), self.net.multipliers(), self.stage.state_dict())
            cut = [vars(cutter) for cutter in self.cutters]
            tensors = [x for x in tree_leaves((state, vars(self.totals), cut)) if isinstance(x, Tensor)]
            seen.setdefault(self.program, set()).add(tuple(x.data_ptr() for x in tensors))

    monkeypatch.setattr(Captured, "_advance", note)
    assert run_in(tmp_path, config(name)).status == "complete"
    assert seen
    assert {len(places) for places in seen.values()} == {1}


def test_which_steps_are_eager(tmp_path: Path, graphs: list[RecordedGraph]) -> None:
    """The first steps of the full size and every smaller last batch are eager, also after the capture."""
    dense = config_of("dense", train={"epochs": 3, "batch_size": BATCH})
    run_in(tmp_path, dense)
    graph, *evaluations = graphs
    assert all(other.warmed_up <= 1 for other in evaluations)
    assert (graph.warmed_up, graph.captures, graph.replays) == (WARM_UP, 1, 3 * FULL - WARM_UP)


@pytest.mark.parametrize("name", ["bip", "prune_iterative", "adaptive_sparsity"])
def test_resumed_within_an_epoch_it_is_captured_anew(
    name: str, storage: Path, tmp_path: Path, graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config(name)
    with monkeypatch.context() as patch:
        patch.setattr(graphs_file, "graph_for", lambda device, generators=(): None)
        run_in(storage, whole)
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    for _ in range(100):
        asked = iter(range(100))
        state = run_in(tmp_path, whole, should_stop=lambda asked=asked: next(asked) >= FULL)
        if state.status == "complete":
            break
    assert state.attempt > 2
    assert_same_outcome(folder_of(whole, tmp_path), folder_of(whole, storage))
    assert sum(graph.captures > 0 for graph in graphs) >= 2


def test_other_hyperparameters_are_captured_anew(
    storage: Path, tmp_path: Path, graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {**CONFIGS["bip"]["prune"], "batch_size": BATCH, "epochs": 4}
    first = config_of("bip", prune={**recipe, "lr": 0.1}, until_epoch=2)
    last = segments.child(first, {"prune.lr": 0.02, "implicit_gradient": "code"}, 4)
    with monkeypatch.context() as patch:
        patch.setattr(graphs_file, "graph_for", lambda device, generators=(): None)
        run_in(storage, last)
    run_in(tmp_path, last)
    assert_same_outcome(folder_of(last, tmp_path), folder_of(last, storage))
    *_, before, after, _ = trained(graphs)  # the last one finetunes
    assert (before.captures, after.captures) == (1, 1)


class FullAtTheEnd(RecordedGraph):
    """Finds no memory at the end of a capture: the host has run the whole function by then, the device nothing."""

    def capture(self, function: Callable[[], None]) -> None:
        super().capture(function)
        raise torch.OutOfMemoryError("CUDA out of memory")


CROWDED: list[tuple[str, dict[str, Any]]] = [
    *((name, LONGER) for name in ("greg1", "greg2-channel")),
    *((name, {}) for name in ("dense", "bip-channel", "hydra", "adaptive_sparsity", "prune_iterative", "regrow")),
    ("bip", {"prune": {"epochs": 2, "batch_size": BATCH, "backward": {"p_bern": 0.5, "refresh_every": 4}}}),
    ("dense", {"model": "with_dropout", "precision": "bf16"}),
]


@pytest.mark.parametrize(("name", "fields"), CROWDED, ids=[f"{name}-{'-'.join(more)}" for name, more in CROWDED])
def test_a_capture_without_memory_leaves_nothing_behind(
    name: str, fields: dict[str, Any], storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config(name, **fields)
    monkeypatch.setattr(launches, "few_launches", lambda device: True)
    run_in(storage, whole)
    made: list[FullAtTheEnd] = graphs_made(monkeypatch, FullAtTheEnd)
    assert run_in(tmp_path, whole).status == "complete"
    assert_same_outcome(folder_of(whole, tmp_path), folder_of(whole, storage))
    assert any(graph.captures for graph in made)
    assert all(graph.resets for graph in made if graph.captures)  # what the capture had allocated is free again


@pytest.mark.parametrize("name", ["imp-weights", "prune_iterative", "bip", "greg1"])
def test_a_stage_frees_its_graph_before_the_next_one_captures(
    name: str, tmp_path: Path, graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph holds the memory of a whole step: those of earlier stages would add up until Python collects cycles."""
    held: list[int] = []
    original = RecordedGraph.capture

    def capture(self: RecordedGraph, function: Callable[[], None]) -> None:
        held.append(sum(not graph.resets for graph in trained(graphs) if graph.captures))
        original(self, function)

    monkeypatch.setattr(RecordedGraph, "capture", capture)
    assert run_in(tmp_path, config(name, **(LONGER if name == "greg1" else {}))).status == "complete"
    assert len(trained(graphs)) > 1
    assert max(held) <= 1  # an evaluation may be captured beside the one training step
    assert all(graph.resets for graph in trained(graphs))


def made(content: dict[str, Any], graphs: list[RecordedGraph]) -> Eager:
    config = parse({"dataset": "digits", "model": "tiny", **content})
    stage = next(METHODS[config.method](config).stages())
    return stepper(stage, Net(build(config.model, num_classes=10, in_channels=1, seed=0)), config)


@pytest.mark.parametrize(
    "fields",
    [
        {"capture": False},
        {"train": {"backward": {"p_prune": 0.5}}},
        {"method": "bip", "density": 0.2, "optimizers": "shared"},
        {"method": "oracle", "stage_pr": {"0": 0.1}},
    ],
    ids=str,
)
def test_stages_that_are_never_captured(fields: dict[str, Any], graphs: list[RecordedGraph]) -> None:
    assert isinstance(made({"method": "dense"}, graphs), Captured)
    assert isinstance(made({"method": "dense", "compile": True}, graphs), Captured)
    assert isinstance(made({"method": "dense", **fields}, graphs), Eager)
    assert not isinstance(made({"method": "dense", **fields}, graphs), Captured)
    assert len(graphs) == 2


def test_nothing_is_captured_on_a_cpu() -> None:
    assert graph_for(torch.device("cpu")) is None
    assert not isinstance(made({"method": "dense"}, []), Captured)


def stages_of(name: str) -> list[Stage]:
    config = config_of(name)
    return list(METHODS[config.method](config).stages())


def test_every_stages_answer_was_checked_by_hand() -> None:
    """Every stage, also one that inherits ``captures``, must be listed here after its step was checked by hand."""
    found: dict[str, set[bool]] = {}
    for name in CONFIGS:
        for stage in stages_of(name):
            kind = type(stage)
            found.setdefault(f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}", set()).add(stage.captures)
    assert found.pop("bip.Bilevel") == {True, False}  # not with one optimiser for both levels
    assert {name: {answer} for name, answer in CAPTURES.items() if name != "bip.Bilevel"} == found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_cuda_graph_does_the_step_again() -> None:
    device = torch.device("cuda")
    total, one, doubled = (torch.full((), value, device=device) for value in (0.0, 1.0, 0.0))
    graph = CudaGraph(device)

    def step() -> None:
        total.add_(one)
        doubled.copy_(2 * total)

    for _ in range(WARM_UP):
        graph.warm_up(step)
    graph.capture(step)
    assert int(total) == WARM_UP
    for number in range(1, 4):
        graph.replay()
        assert (int(total), int(doubled)) == (WARM_UP + number, 2 * (WARM_UP + number))
