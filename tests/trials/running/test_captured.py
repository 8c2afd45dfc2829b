"""Captured and replayed steps give bit-identical results to eager steps.

The tests use a graph that records operators on the CPU (see recorded_graph.py), not a CUDA graph.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trials.folders import assert_same_outcome
from tests.trials.recorded_graph import RecordedGraph
from tests.trials.small_trials import CONFIGS, config_of, folder_of, run_in
from trials.config.trial_config import TrialConfig
from trials.data.loader import Batch
from trials.methods import segments
from trials.methods.base import Stage, TrainStage
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.models import MODELS, build
from trials.running import captured, progress
from trials.running.captured import WARM_UP, Captured, CudaGraph, Eager, graph_for, stepper
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")

SELECT_FILE = importlib.import_module("trials.sparsity.select")  # trials.sparsity.select is the function
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
    "finetuning.FinetuneRegrown": False,
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
    """Captures steps on the CPU, with selections that read no number there, as on a GPU; lists the graphs made."""
    made: list[RecordedGraph] = []

    def graph(device: torch.device) -> RecordedGraph:
        made.append(RecordedGraph())
        return made[-1]

    monkeypatch.setattr(captured, "graph_for", graph)
    monkeypatch.setattr(SELECT_FILE, "_by_layer", lambda scores: False)
    return made


def config(name: str, **fields: Any) -> TrialConfig:
    """A config of small_trials.py whose recipes have batches of 64."""
    recipes = {key: value for key, value in CONFIGS[name].items() if isinstance(value, dict) and "epochs" in value}
    return config_of(name, **{key: {**value, "batch_size": BATCH} for key, value in recipes.items()}, **fields)


CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("dense", "one_shot", "imp-weights", "bip", "bip-channel", "bip-both", "hydra")),
    *((name, {}) for name in ("hydra-filter-original", "prune_iterative", "finetune", "adaptive_sparsity", "l1")),
    *((name, {}) for name in ("adaptive_sparsity-fixed", "adaptive_sparsity-cut", "one_shot-nm", "bip-nm", "hydra-nm")),
    ("bip", {"implicit_gradient": "code", "batchnorm": "both", "redundant_forwards": True, "accelerate": True}),
    ("bip", {"memory_format": "channels_last"}),
]


@pytest.mark.parametrize(("name", "fields"), CASES, ids=[f"{name}-{'-'.join(more)}" for name, more in CASES])
def test_replayed_steps_give_the_same_results(
    name: str, fields: dict[str, Any], storage: Path, tmp_path: Path, graphs: list[RecordedGraph]
) -> None:
    whole = config(name, **fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captured, "graph_for", lambda device: None)
        assert run_in(storage, whole).status == "complete"
    assert not graphs
    state = run_in(tmp_path, whole)
    assert state.status == "complete", state.error
    assert_same_outcome(folder_of(whole, tmp_path), folder_of(whole, storage))
    trained = [graph for graph in graphs if graph.captures]
    assert trained
    assert all(graph.captures == 1 for graph in graphs if graph.replays)
    assert sum(graph.replays for graph in graphs) >= 2 * FULL - WARM_UP


def test_which_steps_are_eager(tmp_path: Path, graphs: list[RecordedGraph]) -> None:
    """The first steps of the full size and every smaller last batch are eager, also after the capture."""
    dense = config_of("dense", train={"epochs": 3, "batch_size": BATCH})
    run_in(tmp_path, dense)
    (graph,) = graphs
    assert (graph.warmed_up, graph.captures, graph.replays) == (WARM_UP, 1, 3 * FULL - WARM_UP)


@pytest.mark.parametrize("name", ["bip", "prune_iterative", "adaptive_sparsity"])
def test_resumed_within_an_epoch_it_is_captured_anew(
    name: str, storage: Path, tmp_path: Path, graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config(name)
    with monkeypatch.context() as patch:
        patch.setattr(captured, "graph_for", lambda device: None)
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
        patch.setattr(captured, "graph_for", lambda device: None)
        run_in(storage, last)
    run_in(tmp_path, last)
    assert_same_outcome(folder_of(last, tmp_path), folder_of(last, storage))
    *_, before, after, _ = graphs  # the last one finetunes
    assert (before.captures, after.captures) == (1, 1)


def test_the_recorded_graph_does_what_a_graph_does() -> None:
    """Capturing does not execute the step; replays read the captured memory, not its replacements; waiting raises."""
    holder = {"sum": torch.zeros(3), "one": torch.ones(3)}

    def step() -> captured.Result:
        holder["sum"].add_(holder["one"])
        return holder["sum"].sum(), holder["one"].sum()

    graph, kept = RecordedGraph(), holder["sum"]
    total, _ = graph.capture(step)
    assert kept.tolist() == [0, 0, 0]
    graph.replay()
    holder["one"] = 5 * torch.ones(3)
    graph.replay()
    assert kept.tolist() == [2, 2, 2]
    assert float(total) == 6
    holder["one"].fill_(9)
    with pytest.raises(RuntimeError, match="waits for the device"):
        RecordedGraph().capture(lambda: (holder["sum"], torch.tensor(int(holder["one"][0]))))


class Doubling(TrainStage):
    """Counts its calls on the host."""

    prepared = stepped = 0

    def prepare(self) -> None:
        self.prepared += 1

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        self.stepped += 1
        x, y = batches[0]
        return (2 * x).sum(), (2 * y).sum()


def batch(size: int, value: float) -> Batch:
    return torch.full((size, 1), value), torch.full((size,), int(value))


def test_the_host_prepares_every_step_and_the_program_reads_every_batch() -> None:
    stage = Doubling("train", parse({"method": "dense", "dataset": "digits", "model": "tiny"}).train)  # type: ignore[attr-defined]
    graph = RecordedGraph()
    program = Captured(stage, graph)
    sizes = [4] * WARM_UP + [3, 4, 4, 3, 4]
    for number, size in enumerate(sizes, start=1):
        loss, correct = program.step(batch(size, number))
        assert (float(loss), int(correct)) == (2 * number * size, 2 * number * size)
        assert stage.prepared == number
    assert (graph.captures, graph.replays) == (1, 3)
    assert stage.stepped == len(sizes) - 3 + 1  # replays do not call the stage


class Refusing(RecordedGraph):
    def capture(self, step: Callable[[], captured.Result]) -> captured.Result:
        raise RuntimeError("operation not permitted when stream is capturing")


def test_a_failed_capture_names_the_way_out() -> None:
    stage = Doubling("train", parse({"method": "dense", "dataset": "digits", "model": "tiny"}).train)  # type: ignore[attr-defined]
    program = Captured(stage, Refusing())
    for _ in range(WARM_UP):
        program.step(batch(4, 1.0))
    with pytest.raises(RuntimeError, match=r"stage train .* not permitted .*; set capture: false"):
        program.step(batch(4, 1.0))


class Crowded(RecordedGraph):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def capture(self, step: Callable[[], captured.Result]) -> captured.Result:
        raise self.error


def over_the_first() -> RuntimeError:
    """What ending a broken capture raises, over the error that broke it."""
    error = RuntimeError("capture_end failed")
    error.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    return error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), over_the_first()], ids=["own", "over"])
def test_without_memory_for_a_graph_all_steps_run_eagerly(error: Exception) -> None:
    stage = Doubling("train", parse({"method": "dense", "dataset": "digits", "model": "tiny"}).train)  # type: ignore[attr-defined]
    warnings: list[str] = []
    program = Captured(stage, Crowded(error), warnings.append)
    for number in range(1, WARM_UP + 4):
        loss, _ = program.step(batch(4, number))
        assert float(loss) == 8 * number
    assert stage.stepped == stage.prepared == WARM_UP + 3
    assert warnings == ["no memory to capture stage train as a CUDA graph: its steps run eagerly"]


def made(content: dict[str, Any], graphs: list[RecordedGraph]) -> Eager | Captured:
    config = parse({"dataset": "digits", "model": "tiny", **content})
    stage = next(METHODS[config.method](config).stages())
    return stepper(stage, Net(build(config.model, num_classes=10, in_channels=1, seed=0)), config)


@pytest.mark.parametrize(
    "fields",
    [
        {"capture": False},
        {"compile": True},
        {"train": {"backward": {"p_prune": 0.5}}},
        {"method": "bip", "density": 0.2, "optimizers": "shared"},
        {"method": "oracle", "stage_pr": {"0": 0.1}},
        {"model": "with_dropout"},
    ],
    ids=str,
)
def test_stages_that_are_never_captured(
    fields: dict[str, Any], graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_dropout(*, num_classes: int, in_channels: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * in_channels, num_classes))

    monkeypatch.setitem(MODELS, "with_dropout", with_dropout)
    assert isinstance(made({"method": "dense"}, graphs), Captured)
    assert isinstance(made({"method": "dense", **fields}, graphs), Eager)
    assert len(graphs) == 1


def test_nothing_is_captured_on_a_cpu() -> None:
    assert graph_for(torch.device("cpu")) is None
    assert isinstance(made({"method": "dense"}, []), Eager)


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
    total, one = torch.zeros((), device=device), torch.ones((), device=device)
    graph = CudaGraph(device)

    def step() -> captured.Result:
        total.add_(one)
        return total * 2, total * 3

    for _ in range(WARM_UP):
        graph.warm_up(step)
    doubled, tripled = graph.capture(step)
    assert int(total) == WARM_UP
    for number in range(1, 4):
        graph.replay()
        assert (int(total), int(doubled), int(tripled)) == tuple(k * (WARM_UP + number) for k in (1, 2, 3))
