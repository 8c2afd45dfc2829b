"""A step as a program: prepared by the host, captured once, replayed, captured anew, refused or run without memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.trials.recorded_graph import RecordedGraph, graphs_made
from trials.data.loader import Batch
from trials.methods.base import Stage, TrainStage
from trials.methods.parsing import parse
from trials.models import build
from trials.running.captured import Captured
from trials.training.evaluation import Totals
from trials.training.graphs import WARM_UP
from trials.training.net import Net


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    return graphs_made(monkeypatch)


def test_the_recorded_graph_does_what_a_graph_does() -> None:
    """Capturing does not execute the step; replays read the captured memory, not its replacements; waiting raises."""
    holder = {"sum": torch.zeros(3), "one": torch.ones(3), "total": torch.zeros(())}

    def step() -> None:
        holder["sum"].add_(holder["one"])
        holder["total"].copy_(holder["sum"].sum())

    graph, kept = RecordedGraph(), holder["sum"]
    graph.capture(step)
    assert kept.tolist() == [0, 0, 0]
    graph.replay()
    holder["one"] = 5 * torch.ones(3)
    graph.replay()
    assert kept.tolist() == [2, 2, 2]
    assert float(holder["total"]) == 6
    holder["one"].fill_(9)
    with pytest.raises(RuntimeError, match="waits for the device"):
        RecordedGraph().capture(lambda: holder["total"].fill_(int(holder["one"][0])))


class Doubling(TrainStage):
    """Counts its calls on the host; ``others`` are the steps (1, 2, ...) that are another program than the last."""

    prepared = stepped = 0
    others: tuple[int, ...] = ()

    def prepare(self) -> bool:
        self.prepared += 1
        return self.prepared not in self.others

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        self.stepped += 1
        x, y = batches[0]
        return (2 * x).sum(), (2 * y).sum()


def doubling() -> Doubling:
    return Doubling("train", parse({"method": "dense", "dataset": "digits", "model": "tiny"}).train)  # type: ignore[attr-defined]


def batch(size: int, value: float) -> Batch:
    return torch.full((size, 1), value), torch.full((size,), int(value))


def program_of(stage: Stage, graph: RecordedGraph, warn: Callable[[str], None] = lambda text: None) -> Captured:
    net = Net(build("tiny", num_classes=10, in_channels=1, seed=0))
    return Captured(stage, net, Totals.zero(torch.device("cpu")), graph, warn)


def test_the_host_prepares_every_step_and_the_program_reads_every_batch() -> None:
    stage, graph = doubling(), RecordedGraph()
    program = program_of(stage, graph)
    sizes = [4] * WARM_UP + [3, 4, 4, 3, 4]
    loss = correct = 0
    for number, size in enumerate(sizes, start=1):
        program.step(batch(size, number))
        loss, correct = loss + 2 * number * size * size, correct + 2 * number * size
        assert (float(program.totals.loss), int(program.totals.correct)) == (loss, correct)
        assert stage.prepared == number
    assert program.totals.count == sum(sizes)
    assert (graph.captures, graph.replays) == (1, 3)
    assert stage.stepped == len(sizes) - 3 + 1  # replays do not call the stage


def test_another_program_is_captured_in_turn(graphs: list[RecordedGraph]) -> None:
    stage, first = doubling(), RecordedGraph()
    stage.others = (WARM_UP + 3, WARM_UP + 5)
    program = program_of(stage, first)
    steps = 2 * WARM_UP + 7
    for number in range(1, steps + 1):
        program.step(batch(4, number))
    assert float(program.totals.loss) == sum(4 * 2 * number * 4 for number in range(1, steps + 1))
    assert (first.captures, first.replays, first.resets) == (1, 2, 1)
    assert [(graph.captures, graph.replays) for graph in graphs] == [(0, 0), (1, WARM_UP)]


def test_a_smaller_step_that_is_another_program_is_noticed(graphs: list[RecordedGraph]) -> None:
    stage, first = doubling(), RecordedGraph()
    program = program_of(stage, first)
    stage.others = (WARM_UP + 2,)
    for number, size in enumerate([4] * (WARM_UP + 1) + [3] + [4] * (WARM_UP + 2), start=1):
        program.step(batch(size, number))
    assert (first.captures, first.replays) == (1, 1)
    assert [(graph.captures, graph.replays) for graph in graphs] == [(1, 2)]


class Refusing(RecordedGraph):
    def capture(self, function: Callable[[], None]) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")


def test_a_failed_capture_names_the_way_out() -> None:
    program = program_of(doubling(), Refusing())
    for _ in range(WARM_UP):
        program.step(batch(4, 1.0))
    with pytest.raises(RuntimeError, match=r"step of stage train .* not permitted .*; set capture: false"):
        program.step(batch(4, 1.0))


class Crowded(RecordedGraph):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def capture(self, function: Callable[[], None]) -> None:
        raise self.error


def over_the_first() -> RuntimeError:
    """What ending a broken capture raises, over the error that broke it."""
    error = RuntimeError("capture_end failed")
    error.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    return error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), over_the_first()], ids=["own", "over"])
def test_without_memory_for_a_graph_all_steps_run_eagerly(error: Exception) -> None:
    stage, warnings = doubling(), list[str]()
    program = program_of(stage, Crowded(error), warnings.append)
    for number in range(1, WARM_UP + 4):
        program.step(batch(4, number))
        assert float(program.totals.loss) == sum(4 * 2 * value * 4 for value in range(1, number + 1))
    assert stage.stepped == stage.prepared == WARM_UP + 3
    assert warnings == ["no memory to capture a step of stage train as a CUDA graph: it runs operator by operator"]
